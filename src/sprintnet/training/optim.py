"""The optimizers and their learning rates."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sprintnet.training.muon import Muon
from sprintnet.training.settings import MuonSettings, OptimSettings


class Optimizers:
    """Several optimizers that step, skip and are saved as one.

    A gradient scaler sets its scale and whether a gradient overflowed, both on the device, and waits for neither.
    """

    _step_supports_amp_scaling = True  # read by GradScaler

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer]):
        self.optimizers = list(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        """Updates all parameters, or none where a gradient overflowed."""
        for optimizer in self.optimizers:
            for name in ("grad_scale", "found_inf"):  # set by a scaler, for this step only
                setattr(optimizer, name, getattr(self, name, None))
            optimizer.step()

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of all."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for optimizer, part in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(part)


Optimizer = torch.optim.Optimizer | Optimizers


def build_optimizer(model: nn.Module, settings: OptimSettings, muon: MuonSettings) -> Optimizer:
    """Returns SGD over all trained parameters, or, if Muon has a learning rate, Muon for the filters and SGD for the rest.

    Each parameter group carries its `peak_lr`, and whether it `is_whitening`: the bias of a whitening layer.
    """
    groups: dict[str, list[nn.Parameter]] = {"filters": [], "head": [], "whitening": [], "rest": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[_role(name, parameter, muon)].append(parameter)
    sgd = _build_sgd({role: parameters for role, parameters in groups.items() if role != "filters"}, settings)
    if not groups["filters"]:
        return sgd
    filters = {"params": groups["filters"], "peak_lr": muon.max_lr, "is_whitening": False}
    return Optimizers([Muon([filters], muon.max_lr, muon.momentum), sgd])


def set_learning_rates(optimizer: Optimizer, factor: float, whitening_factor: float) -> None:
    """Sets the learning rate of every group from its peak; the whitening bias is frozen at 0."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * (whitening_factor if group["is_whitening"] else factor)
        if group["is_whitening"]:
            for parameter in group["params"]:
                parameter.requires_grad_(whitening_factor > 0)


def _role(name: str, parameter: nn.Parameter, muon: MuonSettings) -> str:
    if name.startswith("whiten."):
        return "whitening"
    if name.startswith("linear."):
        return "head"
    return "filters" if parameter.ndim == 4 and muon.max_lr else "rest"


def _build_sgd(groups: dict[str, list[nn.Parameter]], settings: OptimSettings) -> torch.optim.Optimizer:
    """Returns SGD; fused, so that a step is one pass over memory and needs no synchronisation."""
    optimizer = torch.optim.SGD(
        [
            {
                "params": parameters,
                "peak_lr": (lr := settings.head_lr or settings.max_lr if role == "head" else settings.max_lr),
                "weight_decay": settings.weight_decay * settings.max_lr / lr,
                "is_whitening": role == "whitening",
            }
            for role, parameters in groups.items()
            if parameters
        ],
        lr=settings.max_lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,
        fused=True,
    )
    if settings.momentum:
        for group in optimizer.param_groups:
            for parameter in group["params"]:  # otherwise a first step that fp16 skips would leave it uninitialised
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
