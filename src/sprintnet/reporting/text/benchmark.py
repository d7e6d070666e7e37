"""What a benchmark measured, as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any


def phase_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields a step's phases: microseconds an image, its share of a step, images/s; then arithmetic against the ceiling."""
    seconds = {phase: 1 / rate if rate else 0.0 for phase, rate in found["images_per_second"].items()}
    phases = ("load", "augment", "forward", "backward", "update")
    step = sum(seconds[phase] for phase in phases)
    device = found["gpu"] or found["device"]
    yield f"{device}, {found['precision']}, {found['threads']} threads, batches of {found['batch_size']}"
    yield f"{'phase':10}  {'us/image':>9}  {'of a step':>9}  {'images/s':>10}"
    for phase in (*phases, "evaluate"):
        share = f"{seconds[phase] / step:9.1%}" if phase in phases else f"{'':9}"
        rate = f"{1 / seconds[phase]:10,.0f}" if seconds[phase] else "below the noise"
        yield f"{phase:10}  {1e6 * seconds[phase]:9.1f}  {share}  {rate}"
    for resolution, rate in found["step_images_per_second"].items():
        yield f"whole steps, images at {float(resolution):.0%} of their side: {rate:,.0f} images/s"
    share = found["gflops"] / found["ceiling_gflops"]
    yield (
        f"{found['gflop_per_image']:.3f} GFLOP an image as computed; forward and backward {found['gflops']:,.0f} GFLOP/s, "
        f"{share:.0%} of the {found['ceiling_gflops']:,.0f} of matrix products here (medians of {found['n']})"
    )


def training_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields a whole training's times and accuracy, and what each clock covers."""
    yield f"{found['start_seconds']:8.1f} s  from the start of the command until training begins"
    yield f"{found['train_seconds']:8.1f} s  training, all of each step, no evaluation: {found['accuracy']:.2%} right"
    if found["tta_accuracy"] is not None:
        both = found["train_seconds"] + found["tta_seconds"]
        yield f"{both:8.1f} s  training and answering, six views for the unsure: {found['tta_accuracy']:.2%} right"
    reached = found["seconds_to_target"]
    yield (f"{reached:8.1f} s" if reached is not None else f"{'never':>10}") + (
        f"  until {found['target']:.1%} are right: of training, or with all answers over six views at its end"
    )
    yield f"{found['command_seconds']:8.1f} s  the whole command: start, data, training, evaluations, saving; no report"
    if found["peak_gib"] is not None:
        yield f"{found['peak_gib']:8.2f} GiB  most memory held (of the GPU where one computes)"
