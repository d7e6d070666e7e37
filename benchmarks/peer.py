"""Trains with another project's published script: its recipe unchanged, with the replacements below on a CPU.

    python benchmarks/peer.py PATH/airbench94_muon.py --seeds 0 1

The script is not part of this repository: download it from https://github.com/KellerJordan/cifar10-airbench, or
https://github.com/hiverge/cifar10-speedrun. Prints, after each training, a line of JSON: TTA accuracy and seconds, measured by
the script (whitening, augmentation, training, TTA). The script sets no seed: PyTorch's generators are seeded before each
training. With `--on-request` the seeds are read from standard input, and a training begins when its seed comes. On a CPU, CUDA
events are replaced by the wall clock, compilation is off, half precision becomes bf16 autocast over fp32 weights (fp32 on a
processor without bf16, as in SprintNet), and the allocator keeps freed memory as in SprintNet; the recipe is unchanged.
"""

import argparse
import contextlib
import json
import random
import re
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import torch

from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.load import load_splits
from sprintnet.data.settings import DataSettings
from sprintnet.runtime import select_runtime


class Clock:
    """Replaces torch.cuda.Event."""

    def __init__(self, **_: object):
        self.time = 0.0

    def record(self) -> None:
        """Records the time."""
        self.time = time.perf_counter()

    def elapsed_time(self, end: "Clock") -> float:
        """Returns milliseconds until `end`."""
        return 1000 * (end.time - self.time)


def replace_torchvision() -> None:
    """Installs a module with the one class of torchvision that the script needs when its data exists."""
    transforms = types.ModuleType("torchvision.transforms")

    class Normalize:
        def __init__(self, mean: torch.Tensor, std: torch.Tensor):
            self.mean, self.std = mean, std

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            mean, std = (values.to(images)[:, None, None] for values in (self.mean, self.std))
            return (images - mean) / std

    transforms.Normalize = Normalize  # type: ignore[attr-defined]
    package = types.ModuleType("torchvision")
    package.transforms = transforms  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": package, "torchvision.transforms": transforms}


def save_data(folder: Path, name: str) -> None:
    """Writes a dataset in the script's format to the place where it looks."""
    folder.mkdir()
    val = 0.0 if name in BUILTIN_DATASETS else "auto"
    splits = load_splits(DataSettings(name=name, val=val), log=lambda line: None, test=True)
    for name, dataset in splits.items():
        images, labels = torch.from_numpy(dataset.images), torch.from_numpy(dataset.labels)
        torch.save({"images": images, "labels": labels, "classes": list(dataset.classes)}, folder / f"{name}.pt")


def move_to_cpu() -> None:
    """Replaces what exists on CUDA only."""
    load = torch.load
    torch.load = lambda *arguments, **options: load(*arguments, **{**options, "map_location": "cpu"})  # type: ignore[assignment]
    torch.compile = uncompiled  # type: ignore[assignment]
    torch.nn.Module.compile = lambda *_, **__: None  # type: ignore[method-assign]
    torch.nn.Module.cuda = lambda self, *_: self  # type: ignore[assignment, method-assign]
    torch.nn.Module.half = torch.nn.Module.float  # type: ignore[method-assign]
    torch.Tensor.half = torch.Tensor.float  # type: ignore[method-assign, assignment]
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[assignment, method-assign]
    torch.cuda.Event = Clock  # type: ignore[misc, assignment]
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]


def uncompiled(function: Any = None, **_: object) -> Any:
    """Replaces torch.compile."""
    if isinstance(function, torch.nn.Module):
        vars(function)["_orig_mod"] = function  # where a compiled network keeps the plain one
    return (lambda inner: inner) if function is None else function


def in_bf16(network: Any) -> Any:
    """Makes a network, or a class of them, run forward under autocast, and returns it.

    Whitening stays in fp32: in bf16 small eigenvalues turn negative.
    """
    forward = network.forward

    def under_autocast(*arguments: Any, **options: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: torch.Tensor = forward(*arguments, **options)
        return logits.float()

    network.forward = under_autocast
    return network


def main() -> None:
    """Runs the script in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--on-request", action="store_true", help="read the seeds from standard input instead")
    parser.add_argument("--part", type=float, default=1.0, help="share of the script's epochs")
    parser.add_argument("--data", default="cifar10", help="another dataset, to try this script with")
    options = parser.parse_args()
    seeds = map(int, sys.stdin) if options.on_request else iter(options.seeds)
    code = re.sub(r"range\((25|200)\)", "range(10**9)", options.script.read_text("utf-8"))
    code = re.sub(r"(train_epochs': )([\d.]+)", lambda found: f"{found[1]}{options.part * float(found[2])}", code)
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        code = code.replace('main("warmup", model)', "pass").replace("torch.device(gpu)", "'cpu'")
    replace_torchvision()

    seed: int | None = None

    def await_seed() -> None:
        """Seeds the next training; ends the script where there is none."""
        nonlocal seed
        if (seed := next(seeds, None)) is None:
            raise SystemExit
        start_at_seed()

    def start_at_seed() -> None:
        random.seed(seed)
        torch.manual_seed(seed)

    def collect(variables: dict[str, Any], is_final_entry: bool) -> None:
        seconds = variables.get("time_seconds", variables.get("total_time_seconds"))
        shown = {key: variables.get(key) for key in ("epoch", "train_acc", "val_acc", "tta_val_acc")}
        print({**shown, "seconds": seconds}, flush=True)
        if is_final_entry and variables.get("run") == "warmup":  # on random data
            start_at_seed()
        elif is_final_entry:
            print(json.dumps({"accuracy": float(variables["tta_val_acc"]), "seconds": seconds}), flush=True)
            await_seed()

    runtime = None if on_gpu else select_runtime("cpu", "auto", 0)
    context = runtime.activated(0) if runtime else contextlib.nullcontext()
    data = options.data if options.data in BUILTIN_DATASETS else str(Path(options.data).absolute())
    with context, tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        save_data(Path("cifar10"), data)
        Path("script.py").write_text(code, "utf-8")
        sys.argv = ["script.py"]
        # replace the script's function that prints metrics by one that keeps them
        start = code.index('if __name__ == "__main__":')
        module = sys.modules["__main__"] = types.ModuleType("__main__")  # where PyTorch's compiler looks up names
        names = vars(module)
        if not on_gpu:
            move_to_cpu()
        exec(compile(code[:start], str(options.script), "exec"), names)
        names["print_training_details"] = collect
        if runtime and runtime.precision == "bf16":
            if "CifarNet" in names:
                in_bf16(names["CifarNet"])
            else:
                make_net = names["make_net"]
                names["make_net"] = lambda *settings: in_bf16(make_net(*settings))
        await_seed()
        exec(compile(code[start:], str(options.script), "exec"), names)


if __name__ == "__main__":
    main()
