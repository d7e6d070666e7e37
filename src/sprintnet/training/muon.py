"""Muon: momentum whose update is orthogonalised (Jordan 2024, https://kellerjordan.github.io/posts/muon), in batches."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sprintnet.runtime import has_fast_bf16


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for convolution weights (out, in, h, w), each kept at a norm of sqrt(out).

    Weights of one shape are orthogonalised in one batch. A gradient scaler sets `grad_scale`, the factor of the gradients, and
    `found_inf`, whether one overflowed: the step then changes nothing. Neither waits for the device.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float):
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every weight that has a gradient."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._step(parameters, group["lr"], group["momentum"])

    def _step(self, parameters: list[nn.Parameter], lr: float, momentum: float) -> None:
        directions = []
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            if self.grad_scale is not None:
                gradient = gradient / self.grad_scale
            velocity = state["momentum_buffer"] * momentum + gradient
            self._replace(state["momentum_buffer"], velocity)
            directions.append(gradient.add(velocity, alpha=momentum).flatten(1))
        updates = orthogonalise(torch.stack(directions))
        for parameter, update in zip(parameters, updates, strict=True):
            normalised = parameter * (len(parameter) ** 0.5 / parameter.norm())
            self._replace(parameter, normalised.add_(update.view(parameter.shape), alpha=-lr))

    def _replace(self, old: Tensor, new: Tensor) -> None:
        old.copy_(new if self.found_inf is None else torch.where(self.found_inf > 0, old, new))


def orthogonalise(matrices: Tensor, steps: int = 3) -> Tensor:
    """Returns matrices (N, rows, columns) with singular values near 1 (about 0.5 to 1.5) and unchanged singular vectors.

    A quintic Newton-Schulz iteration, in bf16 where that is fast.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if has_fast_bf16(matrices.device.type) else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)
