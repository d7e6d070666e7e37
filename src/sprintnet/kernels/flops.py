"""What kernels in C multiply, as PyTorch's counter of arithmetic sees it."""

import torch


def count_products(matrices: int, rows: int, inner: int, columns: int) -> None:
    """Counts as done: `matrices` products, (rows, inner) by (inner, columns). On the meta device nothing is computed."""
    torch.bmm(torch.empty(matrices, rows, inner, device="meta"), torch.empty(matrices, inner, columns, device="meta"))
