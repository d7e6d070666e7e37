"""The optimizer and the rates it steps at."""

import torch
from torch import nn

from sprintnet.training.settings import OptimSettings


def build_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """Returns SGD over all parameters; fused, so that a step is one pass over memory and needs no synchronisation."""
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.max_lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    if settings.momentum:
        for parameter in model.parameters():  # left to itself, a first step that fp16 skips would leave it uninitialised
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
