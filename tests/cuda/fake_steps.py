"""Training steps on fake tensors of device cuda, without a GPU: shapes, dtypes, devices and casts are PyTorch's, no number is.

    python fake_steps.py LIBRARY RECIPE PRECISION [--data DATA] [--plant FAULT]

LIBRARY is pretended_cuda.cpp, compiled. Prints JSON: for each part of training the operations that would launch kernels, copies
between host and device, places where the host would wait for the device, and errors such as tensors on two devices. What it
cannot see: kernels that do not exist on CUDA, numbers, overflow, time.
"""

import argparse
import ctypes
import importlib.util
import json
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FREE = {  # views, shapes and allocation: no kernel
    *(
        "device",
        "view",
        "_unsafe_view",
        "permute",
        "transpose",
        "t",
        "slice",
        "select",
        "expand",
        "as_strided",
        "detach",
        "alias",
    ),
    *(
        "unsqueeze",
        "squeeze",
        "empty",
        "empty_like",
        "empty_strided",
        "empty_permuted",
        "new_empty",
        "new_empty_strided",
        "split",
    ),
    *("split_with_sizes", "unbind", "lift_fresh", "_reshape_alias", "flatten", "unflatten", "unfold", "is_same_size"),
    "_local_scalar_dense",
}
COPIES = ("_to_copy", "copy_", "lift_fresh_copy")


def load_pretended_cuda(library: str) -> None:
    """Loads the library where PyTorch will find it first."""
    spec = importlib.util.find_spec("torch")
    assert spec and spec.origin
    for path in (Path(spec.origin).with_name("lib") / "libtorch_global_deps.so", Path(library)):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def main() -> None:
    """Runs the parts and prints the report."""
    parser = argparse.ArgumentParser()
    for name in ("library", "recipe", "precision"):
        parser.add_argument(name)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--plant", default="")
    options = parser.parse_args()
    load_pretended_cuda(options.library)
    print(json.dumps(report(options.recipe, options.precision, options.data, options.plant)))


def report(recipe: str, precision: str, data: str, plant: str) -> dict[str, Any]:
    """Returns what each part of training does, by its name."""
    import numpy as np
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from sprintnet.autoconfig import DatasetFacts, resolve
    from sprintnet.config import load_config
    from sprintnet.data.augment import resize
    from sprintnet.data.dataset import ImageDataset
    from sprintnet.data.loader import Loader
    from sprintnet.data.preprocessing import TTA_VIEWS, Normalisation
    from sprintnet.evaluation.predict import predict, predict_tta
    from sprintnet.evaluation.task import SINGLE_LABEL
    from sprintnet.models.factory import build_model
    from sprintnet.models.sprintnet import SprintNet
    from sprintnet.runtime import Runtime
    from sprintnet.training.optim import build_optimizer, set_learning_rates
    from sprintnet.training.step import Step

    pretend(torch, np)
    shape, classes = {"cifar10": ((32, 32, 3), 10), "custom": ((64, 64, 1), 30)}[data]
    config = load_config(recipe, [f"precision={precision}", "batch_size=512"])
    config, _ = resolve(config, DatasetFacts(50_000, classes, shape))
    device, draw = torch.device("cuda"), np.random.default_rng(0)
    runtime, count = Runtime(device, precision, 1), 2 * config.batch_size
    images = draw.integers(0, 255, (count, *shape), np.uint8)
    dataset = ImageDataset(images, draw.integers(0, classes, count), tuple(map(str, range(classes))))
    parts: dict[str, Any] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = on_device(torch, build_model(config.model, classes, shape), device)
        optimizer = build_optimizer(model, config.optim.scaled_to(config.batch_size), config.muon)
        step = Step(model, optimizer, runtime, config.label_smoothing, config.l1, SINGLE_LABEL)
        normalisation = Normalisation((0.5,) * shape[2], (0.2,) * shape[2])
        loader = Loader(dataset, normalisation, config.batch_size, device)
        plant_fault(torch, plant, Step)
        if isinstance(model, SprintNet):
            with watched(torch, parts, "whitening"):
                model.whiten_from(loader.read(slice(500)))
        batches = loader.epoch(0, 0, config.augment)
        for name in ("first batch", "batch"):
            with watched(torch, parts, name):
                images, labels = next(batches)
        parts["batch"]["is_channels_last"] = images.is_contiguous(memory_format=torch.channels_last)
        model.train()
        for share in dict.fromkeys(config.schedule.resolution):
            for name in (f"first resize to {share:g}", f"resize to {share:g}"):
                with watched(torch, parts, name):
                    scaled = resize(images, share)
            for whitening in (0.5, 0.0):
                set_learning_rates(optimizer, 0.5, whitening)
                with watched(torch, parts, "first step"):  # which allocates
                    step(scaled, labels)
                with watched(torch, parts, f"step at {share:g}, whitening {'trained' if whitening else 'frozen'}"):
                    step(scaled, labels)
        pairs = [(p.grad, p) for p in model.parameters() if p.grad is not None and p.ndim == 4]
        parts["gradients"] = {"in_layout_of_weights": all(layout(gradient) == layout(weight) for gradient, weight in pairs)}
        evaluated = [(images, labels), (images, labels)]
        with watched(torch, parts, "evaluation"):
            predict(model, evaluated, runtime)
        with watched(torch, parts, "TTA"):
            predict_tta(model, evaluated, runtime, np.zeros((2 * len(labels), classes), np.float32), TTA_VIEWS["all"])
    return parts


def pretend(torch: Any, np: Any) -> None:
    """Makes PyTorch's Python code believe that CUDA is there."""
    import torch.cuda.amp.common as common

    common.amp_definitely_not_available = lambda: False  # autocast and GradScaler
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    torch.autograd.set_multithreading_enabled(False)

    def fused_sgd(
        parameters: Any, gradients: Any, momenta: Any, *, grad_scale: Any = None, found_inf: Any = None, **_: Any
    ) -> None:
        """The checks of the fused operation, which has no fake version, as one operation."""
        for each in zip(parameters, gradients, *([momenta] if momenta else []), strict=True):
            assert len(set(map(layout, each))) == 1, "fused SGD: layouts differ"
            assert {(one.device, one.dtype) for one in each} == {(each[0].device, each[0].dtype)}, (
                "fused SGD: devices or types differ"
            )
        assert all(one is None or one.device == parameters[0].device for one in (grad_scale, found_inf)), "fused SGD: scale"
        with torch.no_grad():
            parameters[0].mul_(1)

    torch._fused_sgd_ = fused_sgd
    fake = torch._subclasses.fake_tensor.FakeTensor  # whose numbers cannot be had
    fake.numpy = lambda self: np.zeros(tuple(self.shape), {torch.int64: np.int64}.get(self.dtype, np.float32))


def layout(tensor: Any) -> tuple[int, ...]:
    """Returns the strides of the dimensions that matter."""
    return tuple(step for size, step in zip(tensor.shape, tensor.stride(), strict=True) if size != 1)


def on_device(torch: Any, model: Any, device: Any) -> Any:
    """Returns the model on the device, in channels_last; Module.to does not take fake tensors."""
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, value in kind.items():
                if value is not None:
                    layout = torch.channels_last if value.ndim == 4 else torch.preserve_format
                    there = value.detach().to(device, memory_format=layout)
                    kind[name] = torch.nn.Parameter(there, value.requires_grad) if kind is module._parameters else there
    return model


def plant_fault(torch: Any, fault: str, step: Any) -> None:
    """Makes training wrong in one way, which the report must show."""
    update = step.update
    if fault == "host wait":

        def waiting(self: Any, loss: Any, correct: Any, images: int) -> None:
            update(self, loss, correct, images if loss.item() < 9 else 0)

        step.update = waiting
    elif fault == "two devices":
        step.update = lambda self, loss, correct, images: update(self, loss + torch.ones(2), correct, images)
    elif fault == "copy":
        step.update = lambda self, loss, correct, images: update(self, loss + torch.zeros(1).to(loss.device), correct, images)
    elif fault == "operations":

        def slow(self: Any, loss: Any, correct: Any, images: int) -> None:
            for parameter in self.model.parameters():
                parameter.grad = None if parameter.grad is None else parameter.grad * 1 + 0
            update(self, loss, correct, images)

        step.update = slow


@contextmanager
def watched(torch: Any, parts: dict[str, Any], name: str) -> Iterator[None]:
    """Adds what the block does to the parts, under a name."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
    from torch.utils._python_dispatch import TorchDispatchMode

    operations: Counter[str] = Counter()
    copies: Counter[str] = Counter()

    def devices(tree: Any) -> set[str]:
        return {leaf.device.type for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            operation, before, after = function.overloadpacket.__name__, devices((args, kwargs)), devices(out)
            if "cuda" in before | after and operation not in FREE:
                operations[operation] += 1
                if operation in COPIES and len(before | after) > 1:
                    copies[f"to {'device' if 'cuda' in after else 'host'} at {place(traceback.extract_stack())}"] += 1
            return out

    found: dict[str, Any] = {"waits": None, "error": None}
    try:
        with Watch():
            yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        found["waits"] = f"{error.func} at {place(traceback.extract_tb(error.__traceback__))}"
    except Exception as error:  # what CUDA would raise
        found["error"] = f"{error} at {place(traceback.extract_tb(error.__traceback__))}"
    parts[name] = {**found, "operations": operations.total(), "by_name": dict(operations.most_common()), "copies": dict(copies)}


def place(frames: Any) -> str:
    """Returns file:line of the innermost frame of the package."""
    inside = [frame for frame in frames if "/src/sprintnet/" in frame.filename]
    return f"{Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else "?"


if __name__ == "__main__":
    main()
