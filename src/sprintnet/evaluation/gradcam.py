"""Where a network looks: Grad-CAM (Selvaraju et al. 2016, arXiv:1610.02391), and how faithful its maps are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 16
"""Parts in which pixels are removed or added when a map is judged."""


@contextmanager
def recorded(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yields a dict that holds the output of each named layer after every forward pass; the hooks go when it is left."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        return model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: outputs.update({name: output}))

    handles = [keep(name) for name in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def class_maps(model: nn.Module, images: Tensor, classes: Tensor, layers: Sequence[str]) -> Tensor:
    """Returns maps (B, H, W) in 0..1, at the images' size, of what speaks for a class (B,) in images (B, C, H, W).

    Of several layers: the mean of their maps. A map without any evidence for its class is 0. The model must be in its
    evaluation mode; its weights, gradients and hooks are left alone.
    """
    assert not model.training
    with torch.enable_grad(), recorded(model, layers) as outputs:
        logits = model(images.detach().requires_grad_())
        chosen = logits.float().gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(chosen, [outputs[name] for name in layers])
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
) -> tuple[float, float]:
    """Returns (deletion, insertion): the class's mean probability while the pixels go, or come, in the order of the maps.

    Maps that show what the network uses make deletion small and insertion large: compare with maps of noise. A removed pixel
    has the mean colour; `activate` makes probabilities of logits. Petsiuk et al. 2018, arXiv:1806.07421.
    """
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    rank = rank.view(len(images), 1, *images.shape[2:])
    deletion: list[Tensor] = []
    insertion: list[Tensor] = []
    for step in range(STEPS + 1):
        is_first = rank < rank[0].numel() * step / STEPS
        for kept, scores in ((~is_first, deletion), (is_first, insertion)):
            probabilities = activate(model((images * kept).contiguous(memory_format=torch.channels_last)).float())
            scores.append(probabilities.gather(1, classes[:, None]).mean())
    return float(torch.stack(deletion).mean()), float(torch.stack(insertion).mean())
