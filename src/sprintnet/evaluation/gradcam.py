"""Grad-CAM class activation maps (Selvaraju et al. 2016, arXiv:1610.02391) and their faithfulness."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FAITHFULNESS_STEPS = 16
FORWARD_PASSES = 2 * (FAITHFULNESS_STEPS + 1)  # of an image, for the faithfulness of a map


@contextmanager
def recorded(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yields a dict that holds the last output of each named layer while the context is open."""
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> torch.utils.hooks.RemovableHandle:
        return model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: outputs.update({name: output}))

    handles = [record(name) for name in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def class_maps(model: nn.Module, images: Tensor, classes: Tensor, layers: Sequence[str]) -> Tensor:
    """Returns Grad-CAM maps (B, H, W) in 0..1 for a class (B,) of each image (B, C, H, W), at the size of the images.

    The maps of several layers are averaged. A map with no positive evidence for its class is 0. The model must be in
    evaluation mode; its gradients are left alone.
    """
    assert not model.training
    with torch.enable_grad(), recorded(model, layers) as outputs:
        logits = model(images.detach().requires_grad_())
        target = logits.float().gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(target, [outputs[name] for name in layers])
    maps = []
    for name, gradient in zip(layers, gradients, strict=True):
        weights = gradient.float().mean(dim=(2, 3), keepdim=True)
        coarse = F.relu((weights * outputs[name].detach().float()).sum(dim=1, keepdim=True))
        fine = F.interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        maps.append(fine / fine.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12))
    return torch.stack(maps).mean(dim=0)


@torch.inference_mode()
def faithfulness(
    model: nn.Module, activate: Callable[[Tensor], Tensor], images: Tensor, classes: Tensor, maps: Tensor
) -> dict[str, float]:
    """Returns `deletion` and `insertion`: the mean probability of the class while pixels are removed, or added, in map order.

    Deletion is low and insertion high for faithful maps; compare with random maps. A removed pixel has the mean colour, 0;
    `activate` turns logits into probabilities. Petsiuk et al. 2018, arXiv:1806.07421.
    """
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    rank = rank.view(len(images), 1, *images.shape[2:])
    scores: dict[str, list[Tensor]] = {"deletion": [], "insertion": []}
    for step in range(FAITHFULNESS_STEPS + 1):
        is_first = rank < rank[0].numel() * step / FAITHFULNESS_STEPS
        for kept, values in zip((~is_first, is_first), scores.values(), strict=True):
            probabilities = activate(model((images * kept).contiguous(memory_format=torch.channels_last)).float())
            values.append(probabilities.gather(1, classes[:, None]).mean())
    return {name: float(torch.stack(values).mean()) for name, values in scores.items()}
