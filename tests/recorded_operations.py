"""What a CUDA graph does, on a CPU: operations are recorded with the tensors that they read and write, and run again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sprintnet.training.graphs import StepFunction


class RecordedOperations:
    """Records like `CudaGraphs`: a replay reads and writes the memory of the recording, without the function's Python code.

    Unlike there, recording also runs the operations.
    """

    def record(self, function: StepFunction, images: Tensor, labels: Tensor) -> StepFunction:
        inputs, calls = (images.clone(), labels.clone()), _Recorder()
        with calls:
            function(*inputs)

        def replay(images: Tensor, labels: Tensor) -> None:
            inputs[0].copy_(images)
            inputs[1].copy_(labels)
            with torch.no_grad():
                for call in calls.made:
                    call()

        return replay


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.made: list[Callable[[], None]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        inputs = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}

        def again() -> None:
            for old, new in zip(tensors(out), tensors(function(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() not in inputs:  # neither a view nor changed in place
                    old.copy_(new)

        self.made.append(again)
        return out


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
