"""The network's answers for a whole split."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.data.loader import Batch
from sprintnet.evaluation.metrics import Floats, Ints
from sprintnet.runtime import Runtime

TTA_WEIGHTS = (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)
"""Weights of an image, its mirror image, two shifts by a pixel and theirs: airbench94 (Jordan 2024, arXiv:2404.00498)."""

TTA_WEIGHTS_WITHOUT_FLIP = (0.5, 0.25, 0.25)
"""The same without mirror images."""


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], runtime: Runtime) -> tuple[Floats, Ints]:
    """Returns logits float32 (N, K) and labels (N,), or (N, K) of a multi-label set. The model's mode is left alone."""
    with _evaluating(model), runtime.autocast():
        answers = [(model(images).float(), labels) for images, labels in batches]
    logits, truths = zip(*answers, strict=True)
    return torch.cat(logits).cpu().numpy(), torch.cat(truths).cpu().numpy()


@torch.inference_mode()
def predict_tta(
    model: nn.Module,
    batches: Iterable[Batch],
    runtime: Runtime,
    logits: Floats,
    confidence: Floats,
    most: float,
    *,
    mirror: bool = True,
) -> Floats:
    """Returns logits (N, K): the mean over six views for images whose confidence (N,) is `most` or less, `logits` elsewhere.

    The batches are those that `logits` came from, in the same order; 1 asks again about every image. Without `mirror`, which a
    network that was trained without flips is no help for, three views are left.
    """
    first = torch.from_numpy(logits).to(runtime.device)
    unsure = torch.from_numpy(confidence <= most).to(runtime.device)
    answers, start = [], 0
    with _evaluating(model):
        for images, _ in batches:
            part = slice(start, start := start + len(images))
            chosen = unsure[part].nonzero()[:, 0]
            answer = first[part].clone()
            if len(chosen):
                answer[chosen] = _views(model, images[chosen], answer[chosen], runtime, mirror)
            answers.append(answer)
    return torch.cat(answers).cpu().numpy()


def _views(model: nn.Module, images: Tensor, first: Tensor, runtime: Runtime, mirror: bool) -> Tensor:
    """Returns the weighted mean of the answers to six views, or three, the first of which is known."""
    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    shifted = [padded[..., :-2, :-2], padded[..., 2:, 2:]]
    others_seen = [images.flip(-1), *shifted, *(view.flip(-1) for view in shifted)] if mirror else shifted
    views = torch.cat(others_seen)
    with runtime.autocast():
        answers = model(views.contiguous(memory_format=torch.channels_last)).float()
    others = answers.unflatten(0, (len(others_seen), len(images)))
    weights = torch.tensor(TTA_WEIGHTS if mirror else TTA_WEIGHTS_WITHOUT_FLIP, device=first.device)
    return torch.einsum("v,vbk->bk", weights, torch.cat([first[None], others]))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
