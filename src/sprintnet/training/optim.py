"""The optimizer and its learning rates: SGD, or Muon for the convolution filters and SGD for the rest.

torch.optim is not used: creating one of its optimizers imports PyTorch's compiler, which takes two seconds.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sprintnet.models.base import LinearNetwork
from sprintnet.training.muon import muon_update, muon_update_in_one_batch
from sprintnet.training.settings import MuonSettings, OptimSettings

ROLES = ("filters", "head", "whitening", "rest")


class Optimizer:
    """Updates groups of parameters with momentum, each by its own rule; all step, skip and are saved as one.

    A group: `params`, `lr` (on CUDA a tensor, which a recorded step reads again) and `peak_lr`, whether it `is_whitening` (the
    bias of a whitening layer), `update` (`sgd_update` or `muon_update`) and `settings`, its further arguments. A gradient
    scaler sets `grad_scale`, the factor of the gradients, and `found_inf`, whether one overflowed: a step then changes
    nothing. Neither waits for the device. On mps, where some versions of PyTorch's fused operation ignore them, the scaler
    divides the gradients and skips steps itself.
    """

    def __init__(self, param_groups: list[dict[str, Any]]):
        self.param_groups = param_groups
        parameters = [parameter for group in param_groups for parameter in group["params"]]
        self.momentum_buffers: dict[nn.Parameter, Tensor] = {p: torch.zeros_like(p) for p in parameters}

    @property
    def has_whitening(self) -> bool:
        """Whether the bias of a whitening layer is trained at some time."""
        return any(group["is_whitening"] for group in self.param_groups)

    @property
    def trains_whitening(self) -> bool:
        """Whether the bias of a whitening layer is trained now."""
        groups = [group["params"] for group in self.param_groups if group["is_whitening"]]
        return any(parameter.requires_grad for parameters in groups for parameter in parameters)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `step` takes `grad_scale` and `found_inf`; read by GradScaler."""
        return next(iter(self.momentum_buffers)).device.type != "mps"

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient, or none where a gradient overflowed."""
        scaler = {name: getattr(self, name, None) for name in ("grad_scale", "found_inf")}
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            buffers = [self.momentum_buffers[parameter] for parameter in parameters]
            if parameters:
                group["update"](parameters, buffers, lr=group["lr"], **group["settings"], **scaler)

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for parameter in self.momentum_buffers:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the momentum of each parameter; the learning rates follow from the schedule."""
        return {"momentum_buffers": list(self.momentum_buffers.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for buffer, saved in zip(self.momentum_buffers.values(), state["momentum_buffers"], strict=True):
            buffer.copy_(saved)


def build_optimizer(model: LinearNetwork, settings: OptimSettings, muon: MuonSettings) -> Optimizer:
    """Returns SGD over all trained parameters, or, if Muon has a learning rate, Muon for the filters and SGD for the rest.

    With `layer_decay`, each part of the network has groups of its own (discriminative learning rates: Howard and Ruder 2018,
    arXiv:1801.06146).
    """
    members: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 1.0 if settings.layer_decay == 1 else settings.layer_decay ** (len(model.parts) - 1 - model.part_of(name))
            members.setdefault((_role(name, parameter, muon), decay), []).append(parameter)
    groups = []
    for (role, decay), parameters in sorted(members.items(), key=lambda item: (ROLES.index(item[0][0]), item[0][1])):
        lr = settings.head_lr or settings.max_lr if role == "head" else settings.max_lr
        group = {"params": parameters, "peak_lr": decay * lr, "is_whitening": role == "whitening", "update": sgd_update}
        group["settings"] = {
            "momentum": settings.momentum,
            "nesterov": settings.nesterov and settings.momentum > 0,
            "weight_decay": settings.weight_decay * settings.max_lr / lr,
        }
        if role == "filters":
            update = muon_update_in_one_batch if parameters[0].device.type == "cuda" else muon_update
            group |= {"peak_lr": decay * muon.max_lr, "update": update, "settings": {"momentum": muon.momentum}}
        is_cuda, peak = parameters[0].device.type == "cuda", group["peak_lr"]
        groups.append({**group, "lr": torch.tensor(peak, device=parameters[0].device) if is_cuda else peak})
    return Optimizer(groups)


def sgd_update(
    parameters: Sequence[Tensor],
    buffers: list[Tensor],
    *,
    lr: float | Tensor,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Updates parameters and their momentum by SGD; fused: one pass over memory, without waiting for the device."""
    torch._fused_sgd_(
        list(parameters),
        [parameter.grad for parameter in parameters if parameter.grad is not None],
        buffers if momentum else [],
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        dampening=0.0,
        maximize=False,
        is_first_step=False,
        grad_scale=grad_scale,
        found_inf=found_inf,
    )


def set_learning_rates(optimizer: Optimizer, factor: float, whitening_factor: float) -> None:
    """Sets the learning rate of every group from its peak; the whitening bias is frozen at 0."""
    for group in optimizer.param_groups:
        lr = group["peak_lr"] * (whitening_factor if group["is_whitening"] else factor)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
        if group["is_whitening"]:
            for parameter in group["params"]:
                parameter.requires_grad_(whitening_factor > 0)


def _role(name: str, parameter: nn.Parameter, muon: MuonSettings) -> str:
    if name.startswith("whiten."):
        return "whitening"
    if name.startswith("linear."):
        return "head"
    return "filters" if parameter.ndim == 4 and muon.max_lr else "rest"
