"""The network's answers for a whole split."""

from collections.abc import Iterable

import torch
from torch import nn

from sprintnet.data.loader import Batch
from sprintnet.evaluation.metrics import Floats, Ints
from sprintnet.runtime import Runtime


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], runtime: Runtime) -> tuple[Floats, Ints]:
    """Returns logits float32 (N, K) and labels (N,); the model is left in the mode it was in."""
    was_training = model.training
    model.eval()
    answers = []
    try:
        for images, labels in batches:
            with runtime.autocast():
                answers.append((model(images).float(), labels))
    finally:
        model.train(was_training)
    logits, truths = zip(*answers, strict=True)
    return torch.cat(logits).cpu().numpy(), torch.cat(truths).cpu().numpy()
