"""Muon: momentum whose update is orthogonalised (Jordan 2024, https://kellerjordan.github.io/posts/muon), in batches."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from sprintnet.runtime import has_fast_bf16


def muon_update(
    parameters: Sequence[Tensor],
    buffers: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Updates convolution weights (out, in, h, w), each kept at a norm of sqrt(out), by orthogonalised Nesterov momentum.

    Weights of one shape are orthogonalised in one batch. `grad_scale` is the factor of the gradients; where `found_inf` is not
    zero, nothing changes.
    """

    def replace(old: Tensor, new: Tensor) -> None:
        old.copy_(new if found_inf is None else torch.where(found_inf > 0, old, new))

    directions = defaultdict(list)
    for parameter, buffer in zip(parameters, buffers, strict=True):
        gradient = parameter.grad
        assert gradient is not None
        if grad_scale is not None:
            gradient = gradient / grad_scale
        velocity = buffer * momentum + gradient
        replace(buffer, velocity)
        directions[parameter.shape].append((parameter, gradient.add(velocity, alpha=momentum).flatten(1)))
    for same_shape in directions.values():
        updates = orthogonalise(torch.stack([direction for _, direction in same_shape]))
        for (parameter, _), update in zip(same_shape, updates, strict=True):
            normalised = parameter * (len(parameter) ** 0.5 / parameter.norm())
            replace(parameter, normalised.add_(update.view(parameter.shape), alpha=-lr))


def orthogonalise(matrices: Tensor, steps: int = 3) -> Tensor:
    """Returns matrices (N, rows, columns) with the large singular values near 1 and unchanged singular vectors.

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
