"""The results of a benchmark, as lines for the terminal."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sprintnet.reporting.text.table import table_lines
from sprintnet.reporting.text.times import seconds_text

STEP_PHASES = ("load", "augment", "forward", "backward", "update")


def phase_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the times of a training step by phase, throughput by resolution, and arithmetic against the machine's peak."""
    seconds = {phase: 1 / rate if rate else 0.0 for phase, rate in found["images_per_second"].items()}
    step = sum(seconds[phase] for phase in STEP_PHASES)
    device = found["gpu"] or found["device"]
    yield f"{device}, {found['precision']}, {found['threads']} threads, batch size {found['batch_size']}"
    rows = []
    for phase in (*STEP_PHASES, "evaluate"):
        share = f"{seconds[phase] / step:.1%}" if phase in STEP_PHASES else ""
        rate = f"{1 / seconds[phase]:,.0f}" if seconds[phase] else "below noise"
        rows.append([phase, f"{1e6 * seconds[phase]:.1f}", share, rate])
    yield from table_lines(["phase", "us/image", "of step", "images/s"], rows)
    for resolution, rate in found["step_images_per_second"].items():
        yield f"training step at {float(resolution):.0%} resolution: {rate:,.0f} images/s"
    yield (
        f"{found['gflop_per_image']:.3f} GFLOP/image; forward and backward {found['gflops']:,.0f} GFLOP/s, "
        f"{found['gflops'] / found['ceiling_gflops']:.0%} of the {found['ceiling_gflops']:,.0f} GFLOP/s of matrix products "
        f"(medians of {found['n']})"
    )


def layer_lines(layers: Iterable[Any]) -> Iterator[str]:
    """Yields the rate of each implementation of each layer; `>` marks the chosen one."""
    rows = []
    for layer in layers:
        for name in layer.milliseconds:
            shape = f"{layer.layer} {layer.channels}->{layer.out_channels}, {layer.side}x{layer.side}"
            mark = "> " if name == layer.chosen else ""
            rows.append([shape, mark + name, f"{layer.milliseconds[name]:.1f}", f"{layer.gflops(name):,.0f}"])
    yield from table_lines(["layer", "implementation", "ms/1,000 images", "GFLOP/s"], rows)


def training_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the times, accuracy and memory of a training, and what each time covers."""
    times = {"start": (found["start_seconds"], "from the start of the command until training begins")}
    if found["warmup_seconds"]:
        times["warm-up"] = (found["warmup_seconds"], "of the GPU: libraries, the choice of kernels, CUDA graphs")
    times["training"] = (found["train_seconds"], f"all training steps, no evaluation: accuracy {found['accuracy']:.2%}")
    if found["tta_accuracy"] is not None:
        both = found["train_seconds"] + found["tta_seconds"]
        times["with TTA"] = (both, f"training and TTA evaluation: TTA accuracy {found['tta_accuracy']:.2%}")
    target = f"training to an accuracy of {found['target']:.1%}; TTA at the end counts, with its time"
    times["to target"] = (found["seconds_to_target"], target)
    times["command"] = (found["command_seconds"], "the command: start, data, training, evaluation, saving; no report")
    for name, (seconds, covers) in times.items():
        yield f"{name:9}  {'not reached' if seconds is None else seconds_text(seconds):>11}  {covers}"
    if found["peak_gib"] is not None:
        yield f"{'memory':9}  {found['peak_gib']:7.2f} GiB  peak (of the GPU, if one is used)"
