"""Logits of a network over batches, with or without test-time augmentation (TTA)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.data.loader import Batch
from sprintnet.data.preprocessing import View
from sprintnet.evaluation.metrics import Floats, Ints
from sprintnet.models.base import Network
from sprintnet.runtime import Runtime


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], runtime: Runtime) -> tuple[Floats, Ints]:
    """Returns logits float32 (N, K) and labels (N,), or (N, K) of a multi-label dataset; the model's mode is restored."""
    with evaluating(model), runtime.autocast():
        outputs = [(model(images).float(), labels) for images, labels in batches]
    logits, labels = zip(*outputs, strict=True)
    return torch.cat(logits).cpu().numpy(), torch.cat(labels).cpu().numpy()


class Outputs(NamedTuple):
    """What a network computes from N images."""

    logits: Floats
    """(N, K)"""
    embeddings: Floats
    """(N, C), which the last layer classifies."""
    novelty: Floats
    """(N,): how unlike the training images each is (`models.novelty`)."""


@torch.inference_mode()
def outputs(model: Network, batches: Iterable[Batch], runtime: Runtime) -> Outputs:
    """Returns what a network computes from the images of batches, float32; the model's mode is restored."""
    found = []
    with evaluating(model):
        for images, _ in batches:
            with runtime.autocast():
                embeddings = model.embed(model.features(images))
                logits = model.classify(embeddings)
            exact = embeddings.float()
            found.append((logits.float(), exact, model.novelty(exact)))
    return Outputs(*(torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True)))


@torch.inference_mode()
def predict_tta(
    model: nn.Module,
    batches: Iterable[Batch],
    runtime: Runtime,
    logits: Floats,
    views: Sequence[View],
) -> Floats:
    """Returns logits (N, K): the weighted mean over views (TTA).

    `logits` (N, K) are those of the same batches without TTA: of the first view, the image itself.
    """
    first = torch.from_numpy(logits).to(runtime.device)
    weights = torch.tensor([view.weight for view in views], device=runtime.device)
    outputs, start = [], 0
    with evaluating(model):
        for images, _ in batches:
            part = slice(start, start := start + len(images))
            viewed = torch.cat(views_of(images, views[1:])).contiguous(memory_format=torch.channels_last)
            with runtime.autocast():  # the mean is in fp32
                others = model(viewed).float()
            every = torch.cat([first[part], others]).reshape(len(views), len(images), -1)
            outputs.append(torch.einsum("v,vbk->bk", weights, every))
    return torch.cat(outputs).cpu().numpy()


def views_of(images: Tensor, views: Sequence[View]) -> list[Tensor]:
    """Returns the views of images (B, C, H, W), each of the same shape."""
    border = max(abs(view.shift) for view in views)
    padded = F.pad(images, (border,) * 4, "reflect") if border else images
    height, width = images.shape[2:]

    def one(view: View) -> Tensor:
        start = border - view.shift
        shifted = padded[..., start : start + height, start : start + width]
        return shifted.flip(-1) if view.is_mirrored else shifted

    return [one(view) for view in views]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Sets a network to evaluation mode while the context is open."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
