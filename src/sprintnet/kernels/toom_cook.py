"""Toom-Cook matrices: m outputs of a filter with 3 taps by m + 2 multiplications instead of 3m."""

from functools import cache

import torch
from torch import Tensor

POINTS = {
    2: (0, 1, -1),
    3: (0.4, -0.4, 1.3, -1.3),
    4: (0, 0.6, -0.6, 1.6, -1.6),
    5: (0.3, -0.3, 0.9, -0.9, 1.75, -1.75),
    6: (0, 0.52, -0.52, 1.0, -1.0, 2.18, -2.18),
    7: (0.25, -0.25, 0.69, -0.69, 1.09, -1.09, 2.25, -2.25),
    8: (0, 0.42, -0.42, 0.82, -0.82, 1.27, -1.27, 2.45, -2.45),
}
"""Tile size -> evaluation points besides infinity, chosen for small errors: up to 5 in bf16, from 6 in fp32 (LOG.md)."""


@cache
def toom_cook(outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns A (m, m + 2), G (m + 2, 3) and B (m + 2, m + 2), fp64: y = A [(G w) * (B x)] slides w along x for m outputs.

    The rows of G and B are normalised, which keeps their elements of similar size and so the rounding small. B's rows for
    points a and -a differ in the sign of their odd elements, as A's columns do.
    """
    points = torch.tensor(POINTS[outputs], dtype=torch.float64)
    count = len(points)
    others = [torch.cat([points[:i], points[i + 1 :]]) for i in range(count)]
    output, taps, inputs = (points.new_zeros(shape) for shape in ((outputs, count + 1), (count + 1, 3), (count + 1, count + 1)))
    for i, point in enumerate(points):
        output[:, i] = point ** torch.arange(outputs)
        taps[i] = point ** torch.arange(3) / (point - others[i]).prod()
        inputs[i, :-1] = _polynomial(others[i])
        if point < 0 and count % 2 == 0:  # without the point 0 the even elements would differ
            taps[i], inputs[i] = -taps[i], -inputs[i]
    output[-1, -1] = taps[-1, -1] = 1
    inputs[-1] = _polynomial(points)
    of_taps, of_inputs = taps.norm(dim=1), inputs.norm(dim=1)
    return output * of_taps * of_inputs, taps / of_taps[:, None], inputs / of_inputs[:, None]


def _polynomial(roots: Tensor) -> Tensor:
    """Returns the coefficients of the monic polynomial with these roots, constant first."""
    coefficients = roots.new_ones(1)
    for root in roots:
        shifted = torch.cat([coefficients.new_zeros(1), coefficients])
        shifted[:-1] -= root * coefficients
        coefficients = shifted
    return coefficients
