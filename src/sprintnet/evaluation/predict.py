"""The network's answers for a whole split."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.data.loader import Batch
from sprintnet.evaluation.metrics import Floats, Ints
from sprintnet.runtime import Runtime


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], runtime: Runtime, tta: bool = False) -> tuple[Floats, Ints]:
    """Returns logits float32 (N, K) and labels (N,); with `tta` their mean over six views. The model's mode is left alone."""
    was_training = model.training
    model.eval()
    answers = []
    try:
        for images, labels in batches:
            with runtime.autocast():
                answers.append((_six_views(model, images) if tta else model(images).float(), labels))
    finally:
        model.train(was_training)
    logits, truths = zip(*answers, strict=True)
    return torch.cat(logits).cpu().numpy(), torch.cat(truths).cpu().numpy()


def _six_views(model: nn.Module, images: Tensor) -> Tensor:
    """Returns logits: half from the image and its mirror image, half from both shifted a pixel up-left and down-right.

    The views and weights of airbench94 (Jordan 2024, arXiv:2404.00498).
    """

    def mirrored(views: Tensor) -> Tensor:
        answer: Tensor = (model(views).float() + model(views.flip(-1)).float()) / 2
        return answer

    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    shifted = (mirrored(padded[..., :-2, :-2]) + mirrored(padded[..., 2:, 2:])) / 2
    return (mirrored(images) + shifted) / 2
