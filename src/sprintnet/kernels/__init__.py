"""Compiled CPU kernels and the layers that use them; PyTorch's operations where a kernel is unavailable."""
