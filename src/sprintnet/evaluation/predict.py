"""Logits of a network over batches, with or without test-time augmentation (TTA)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.data.loader import Batch
from sprintnet.evaluation.metrics import Floats, Ints
from sprintnet.runtime import Runtime

TTA_WEIGHTS = (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)
"""Weights of the image, its flip, two shifts by a pixel, their flips; airbench94 (Jordan 2024, arXiv:2404.00498)."""

TTA_WEIGHTS_WITHOUT_FLIP = (0.5, 0.25, 0.25)


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], runtime: Runtime) -> tuple[Floats, Ints]:
    """Returns logits float32 (N, K) and labels (N,), or (N, K) of a multi-label dataset; the model's mode is restored."""
    with _evaluating(model), runtime.autocast():
        outputs = [(model(images).float(), labels) for images, labels in batches]
    logits, labels = zip(*outputs, strict=True)
    return torch.cat(logits).cpu().numpy(), torch.cat(labels).cpu().numpy()


@torch.inference_mode()
def predict_tta(
    model: nn.Module,
    batches: Iterable[Batch],
    runtime: Runtime,
    logits: Floats,
    confidence: Floats,
    max_confidence: float,
    *,
    flip: bool = True,
) -> Floats:
    """Returns logits (N, K), with the weighted mean over augmented images (TTA) for images of at most `max_confidence`.

    `logits` (N, K) and `confidence` (N,) are those of the same batches without TTA. Without `flip`, for networks trained
    without flips, there are three augmented images instead of six.
    """
    first = torch.from_numpy(logits).to(runtime.device)
    is_unsure = torch.from_numpy(confidence <= max_confidence).to(runtime.device)
    outputs, start = [], 0
    with _evaluating(model):
        for images, _ in batches:
            part = slice(start, start := start + len(images))
            chosen = is_unsure[part].nonzero()[:, 0]
            output = first[part].clone()
            if len(chosen):
                output[chosen] = _mean_over_augmented(model, images[chosen], output[chosen], runtime, flip)
            outputs.append(output)
    return torch.cat(outputs).cpu().numpy()


def _mean_over_augmented(model: nn.Module, images: Tensor, first: Tensor, runtime: Runtime, flip: bool) -> Tensor:
    """Returns the weighted mean logits of the augmented images; `first` are those of the images themselves."""
    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    shifted = [padded[..., :-2, :-2], padded[..., 2:, 2:]]
    augmented = [images.flip(-1), *shifted, *(shift.flip(-1) for shift in shifted)] if flip else shifted
    with runtime.autocast():
        outputs = model(torch.cat(augmented).contiguous(memory_format=torch.channels_last)).float()
    others = outputs.unflatten(0, (len(augmented), len(images)))
    weights = torch.tensor(TTA_WEIGHTS if flip else TTA_WEIGHTS_WITHOUT_FLIP, device=first.device)
    return torch.einsum("v,vbk->bk", weights, torch.cat([first[None], others]))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
