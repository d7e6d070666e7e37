"""Muon: momentum whose update is orthogonalised (Jordan 2024, https://kellerjordan.github.io/posts/muon), in batches."""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

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

    directions = defaultdict(list)
    for parameter, buffer in zip(parameters, buffers, strict=True):
        gradient = parameter.grad
        assert gradient is not None
        if grad_scale is not None:
            gradient = gradient / grad_scale
        velocity = _add(buffer, momentum, gradient, 1, found_inf)
        directions[parameter.shape].append((parameter, gradient.add(velocity, alpha=momentum).flatten(1)))
    for same_shape in directions.values():
        updates = orthogonalise(torch.stack([direction for _, direction in same_shape]))
        for (parameter, _), update in zip(same_shape, updates, strict=True):
            scale = len(parameter) ** 0.5 / parameter.norm()
            _add(parameter, scale, update.view(parameter.shape), -lr, found_inf)


def _add(old: Tensor, factor: float | Tensor, summand: Tensor, alpha: float, found_inf: Tensor | None) -> Tensor:
    """Sets old to old * factor + summand * alpha, except where `found_inf` is not zero; returns that sum."""
    if found_inf is None:
        return old.mul_(factor).add_(summand, alpha=alpha)
    new = (old * factor).add_(summand, alpha=alpha)
    old.copy_(torch.where(found_inf > 0, old, new))
    return new


def muon_update_in_one_batch(parameters: Sequence[Tensor], buffers: Sequence[Tensor], **rule: Any) -> None:
    """Does the same with all weights as one batch, padded with zeros, which orthogonalisation leaves as they are.

    For a GPU, which waits for launches more than for arithmetic. `rule` are the keyword arguments of `muon_update`; `lr` is a
    tensor on the device.
    """
    lr, momentum, grad_scale, found_inf = (rule[name] for name in ("lr", "momentum", "grad_scale", "found_inf"))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    shapes = [parameter.shape for parameter in parameters]
    rows, columns = max(shape[0] for shape in shapes), max(math.prod(shape[1:]) for shape in shapes)

    def parts(batch: Tensor) -> list[Tensor]:
        """Returns the weights in a batch as views of their shapes, in channels_last."""
        found = []
        for matrix, (out, inner, height, width) in zip(batch, shapes, strict=True):
            part = matrix[:out, : inner * height * width].unflatten(1, (height, width, inner))
            found.append(part.permute(0, 3, 1, 2))
        return found

    def packed(tensors: Sequence[Tensor]) -> Tensor:
        batch = tensors[0].new_zeros(len(shapes), rows, columns)
        torch._foreach_copy_(parts(batch), list(tensors))
        return batch

    weight, gradient, buffer = packed(parameters), packed(gradients), packed(buffers)
    if grad_scale is not None:
        gradient = gradient / grad_scale
    velocity = torch.add(gradient, buffer, alpha=momentum)
    update = orthogonalise(torch.add(gradient, velocity, alpha=momentum))
    norms = _norms(tuple(shape[0] for shape in shapes), weight.device)
    changed = (weight * (norms / weight.norm(dim=(1, 2), keepdim=True))).addcmul_(update, lr, value=-1)
    if found_inf is not None:
        changed, velocity = (torch.where(found_inf > 0, old, new) for old, new in ((weight, changed), (buffer, velocity)))
    torch._foreach_copy_(list(parameters), parts(changed))
    torch._foreach_copy_(list(buffers), parts(velocity))


@cache
def _norms(rows: tuple[int, ...], device: torch.device) -> Tensor:
    """Returns the norms (N, 1, 1) that weights are kept at, on the device once."""
    return torch.tensor(rows, dtype=torch.float32, device=device).sqrt()[:, None, None]


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
