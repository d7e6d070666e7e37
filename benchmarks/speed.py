"""The tables of speed by processor: beside other projects, with and without each optimisation.

A speedup is a ratio of medians; the brackets beside it hold the smallest and the largest ratio of the pairs, which were
measured in alternation (A B A B). What was not measured has a line with the command that measures it on such processors.
"""

import statistics
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from ablation import ABLATIONS
from rows import RESULTS, Row, hardware, measured, of_newest_code, processor
from sprintnet.reporting.text.times import seconds_text
from sprintnet.runs.environment import PROCESSOR_NAMES

BF16 = ("amx_bf16", "avx512_bf16")
X86 = (*BF16, "avx512f", "avx2")
COMPARED = ("pytorch", "engine")
"""Ablations that compare SprintNet with PyTorch's operations; the others compare it with itself."""


class Line(NamedTuple):
    """A line of the table: what was compared, the kind of processor (None: a GPU, or several kinds), and the other cells."""

    what: str
    kind: str | None
    cells: tuple[str, ...]


class Expected(NamedTuple):
    """A comparison that should be measured on some kinds of processors, and the command that does it."""

    what: str
    kinds: tuple[str, ...]
    command: str


def training_name(recipe: str, peer: str) -> str:
    """Returns how the table names whole trainings beside a peer's."""
    return f"{recipe} against {peer}: training and TTA"


def step_name(ablation: str, recipe: str) -> str:
    """Returns how the table names training steps of an ablation."""
    baseline, variant = (arm.label for arm in ABLATIONS[ablation])
    return f"{recipe}: {variant} against {baseline}"


def start_name(recipe: str) -> str:
    """Returns how the table names the start of the command."""
    return f"`train {recipe}`: start of the command until training begins"


PEERS = (("sprint94", "airbench94_muon", 5), ("sprint95", "airbench95", 1), ("sprint95-long", "airbench96_faster", 1))
"""Recipe, the script that it is measured against, rounds."""
BESIDE = "python benchmarks/side_by_side.py"
EXPECTED = (
    *(
        Expected(training_name(recipe, peer), BF16, f"{BESIDE} {recipe} PATH/{peer}.py --rounds {rounds}")
        for recipe, peer, rounds in PEERS
    ),
    *(
        Expected(step_name("pytorch", recipe), kinds, f"python benchmarks/ablation.py pytorch --recipe {recipe}")
        for recipe, kinds in (("sprint94", (*X86, "asimd")), ("sprint95", X86), ("davidnet", X86))
    ),
    Expected(step_name("engine", "davidnet"), BF16, "python benchmarks/ablation.py engine --recipe davidnet"),
    Expected(start_name("sprint94"), BF16, "sprintnet benchmark sprint94 epochs=1"),
)


def speed() -> Iterator[str]:
    """Yields the table "Speed by processor": a line for each comparison and processor, the comparison named in its first."""
    lines = sorted([*trainings(), *steps(), *starts()], key=lambda line: [*PROCESSOR_NAMES, None].index(line.kind))
    for what, kinds, command in EXPECTED:
        found = {line.kind for line in lines if line.what == what}
        if names := ", ".join(PROCESSOR_NAMES[kind] for kind in kinds if kind not in found):
            lines.append(Line(what, None, (names, f"not measured: `{command}`", "", "", "0", "")))
    order = list(dict.fromkeys([*(each.what for each in EXPECTED), *(line.what for line in lines)]))
    yield "| comparison | processor | SprintNet | baseline | speedup | n | date, commit |\n|" + "---|" * 7
    last = ""
    for what, _, cells in sorted(lines, key=lambda line: order.index(line.what)):
        yield f"| {' | '.join((what if what != last else '', *cells))} |"
        last = what


def beside_peers() -> Iterator[str]:
    """Yields the short table of whole trainings beside another project's scripts."""
    yield "| training and TTA | processor | SprintNet | airbench | speedup (range) | n | date, commit |\n|" + "---|" * 7
    for what, _, cells in trainings():
        yield f"| {what.removesuffix(': training and TTA')} | {' | '.join(cells)} |"


def trainings() -> Iterator[Line]:
    """Yields the lines of whole trainings beside another project's script."""
    for rows in of_newest_code("side-by-side", "peer", "recipe"):
        sides = [list(chain.from_iterable(row[side] for row in rows)) for side in ("recipe_runs", "peer_runs")]
        ours, peers = ([run["seconds"] for run in runs] for runs in sides)
        shown = (f"{seconds_text(statistics.median(run['seconds'] for run in runs))}, {mean_accuracy(runs)}" for runs in sides)
        yield line(training_name(rows[-1]["recipe"], rows[-1]["peer"]), rows, (*shown, speedup(peers, ours)), len(ours))
    for rows in of_newest_code("side-by-side-parts", "peer", "recipe", "part"):
        ours, peers = ([run["seconds"] for row in rows for run in row[side]] for side in ("recipe_runs", "peer_runs"))
        name = f"{rows[-1]['recipe']} against {rows[-1]['peer']}: {rows[-1]['part']:.0%} of the epochs of each, and TTA"
        shown = (seconds_text(statistics.median(seconds)) for seconds in (ours, peers))
        yield line(name, rows, (*shown, speedup(peers, ours)), len(ours))


def steps() -> Iterator[Line]:
    """Yields the lines of training steps against PyTorch's."""
    for rows in of_newest_code("ablation", "ablation", "recipe"):
        if rows[-1]["ablation"] in COMPARED:
            baseline, ours = rates(rows)
            cells = (*(f"{statistics.median(side):,.0f} images/s" for side in (ours, baseline)), speedup(ours, baseline))
            yield line(step_name(rows[-1]["ablation"], rows[-1]["recipe"]), rows, cells, len(ours))


def starts() -> Iterator[Line]:
    """Yields the lines of the seconds until training begins."""
    for rows in of_newest_code("benchmark", "recipe", having="training"):
        seconds = [row["training"]["start_seconds"] for row in rows]
        cells = (f"{statistics.median(seconds):.1f} s{between(seconds, 1)}", "", "")
        yield line(start_name(rows[-1]["recipe"]), rows, cells, len(seconds))


def optimisations() -> Iterator[str]:
    """Yields the table of what each optimisation brings."""
    yield "| recipe | variant | baseline | speedup | n | hardware | date, commit |\n|" + "---|" * 7
    for rows in of_newest_code("ablation", "ablation", "recipe"):
        name, recipe = rows[-1]["ablation"], rows[-1]["recipe"]
        if name in ABLATIONS and name not in COMPARED:
            baseline, variant = rates(rows)
            labels = " | ".join(arm.label for arm in reversed(ABLATIONS[name]))
            found = f"{speedup(variant, baseline)} | {len(variant)}"
            yield f"| {recipe} | {labels} | {found} | {hardware(rows[-1])} | {measured(rows[-1])} |"


def kernel_rates() -> Iterator[str]:
    """Yields a list of the files with the rates of each layer's implementations, and of the commands that write the others."""
    for kind, name in PROCESSOR_NAMES.items():
        file = f"kernels-{kind}.txt"
        command = f"not measured: `sprintnet benchmark --kernels > benchmarks/results/{file}`"
        yield f"- {name}: {f'`benchmarks/results/{file}`' if (RESULTS / file).exists() else command}"


def line(what: str, rows: Sequence[Row], cells: tuple[str, ...], n: int) -> Line:
    """Returns a measured line: what the rows have in common, around its cells."""
    return Line(what, processor(rows[-1]), (hardware(rows[-1]), *cells, str(n), measured(rows[-1])))


def rates(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Returns the images/s of baseline and variant in all rounds."""
    sides = zip(*(row["images_per_second"].values() for row in rows), strict=True)
    baseline, variant = (list(chain.from_iterable(side)) for side in sides)
    return baseline, variant


def mean_accuracy(runs: Sequence[dict[str, float]]) -> str:
    """Returns the mean accuracy, with its standard deviation over several seeds."""
    values = [run["accuracy"] for run in runs]
    several = len({run.get("seed") for run in runs}) > 1
    return f"{statistics.fmean(values):.2%}" + (f" (sd {100 * statistics.stdev(values):.2f})" if several else "")


def speedup(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """Returns the ratio of the medians, with the smallest and the largest ratio of the pairs."""
    ratios = [first / second for first, second in zip(numerators, denominators, strict=True)]
    return f"{statistics.median(numerators) / statistics.median(denominators):.2f}{between(ratios, 2)}"


def between(values: Sequence[float], digits: int) -> str:
    """Returns the range of several values, in brackets."""
    return f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
