"""Writes the README's tables and its picture from benchmarks/results.

    python benchmarks/headline.py

Each file named here gives its newest row (benchmarks/record.py makes them), each ablation, peer and benchmark its newest;
tables go between their two marks in README.md.
"""

import json
import statistics
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ablation import ABLATIONS
from document import write_between
from sprintnet.config import load_config
from sprintnet.reporting.figures.curves import accuracy_over_time
from sprintnet.reporting.figures.style import save
from sprintnet.runs.folder import dotted

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ROWS = {
    "sprint94": "sprint94",
    "sprint95": "sprint95",
    "sprint96": "sprint96",
    "davidnet-24-epochs": "davidnet",
    "fashion-mnist": "sprint94",
    "smoke": "smoke",
    "sprint94-gpu": "sprint94",
    "sprint95-gpu": "sprint95",
    "sprint96-gpu": "sprint96",
    "davidnet-24-epochs-gpu": "davidnet",
}
"""File -> recipe."""
HEAD = "| command | hardware | n | accuracy, plain | with six views | training | six views | images/s |\n|" + "---|" * 8


def ratios() -> Iterator[str]:
    """Yields the second table: what is how many times as fast as what, and what a whole command takes."""
    yield "| recipe | what | than | times as fast | n |\n|" + "---|" * 5
    for row in {(row["ablation"], row["recipe"]): row for row in all_rows("ablation") if row["ablation"] in ABLATIONS}.values():
        before, after = (arm.label for arm in ABLATIONS[row["ablation"]])
        yield f"| {row['recipe']} | {after} | {before} | {row['ratio_of_medians']:.2f} | {row['n']} |"
    for row in {(row["peer"], row["recipe"]): row for row in all_rows("side-by-side")}.values():
        accuracies = [f"{statistics.fmean(run['accuracy'] for run in row[f'{side}_runs']):.2%}" for side in ("recipe", "peer")]
        what, beside = f"whole trainings, {accuracies[0]}", f"{row['peer']}, {accuracies[1]}"
        yield f"| {row['recipe']} | {what} | {beside} | {row['ratio_of_median_seconds']:.2f} | {row['n']} |"


def shipped() -> Iterator[str]:
    """Yields the third table: exported files, how they answer, and how fast they are beside PyTorch in fp32."""
    row = newest("shipping")
    if row is None:
        yield "Not measured."
        return
    eager = row["pytorch"]["PyTorch fp32"]
    yield "| | size | accuracy | same class | one image | 99 % within | times as fast | images/s by 256 | times as fast |"
    yield "|" + "---|" * 9
    for name, figures in {**row["files"], **row["pytorch"]}.items():
        speeds = [figures[key] / eager[key] for key in ("images_per_second_1", "images_per_second_256")]
        proof = (
            f"{figures['bytes'] / 1e6:.1f} MB | {figures['accuracy']:.2%} | {figures['agreement']:.2%}"
            if "bytes" in figures
            else "| |"
        )
        yield (
            f"| {name} | {proof} | {figures['ms_1']:.2f} ms | {figures['ms_p99_1']:.2f} ms | {speeds[0]:.1f} "
            f"| {figures['images_per_second_256']:,.0f} | {speeds[1]:.2f} |"
        )


def served() -> Iterator[str]:
    """Yields the fourth table: a server under load, and under three times as much as it can answer."""
    row = newest("serve")
    if row is None:
        yield "Not measured."
        return
    yield "| clients | answered a second | median | 99 % within | refused (503) |\n|" + "---|" * 5
    for load in (*row["load"], row["overload"]):
        refused = load["statuses"].get("503", 0) / sum(load["statuses"].values())
        yield (
            f"| {load['clients']} | {load['answered_per_second']:,.0f} | {load['answered_ms_p50']:.1f} ms "
            f"| {load['answered_ms_p99']:.1f} ms | {refused:.0%} |"
        )
    mib = row["memory"]["mib"]
    requests = row["memory"]["requests"]
    yield f"\nMemory over {requests:,} requests: {mib[0]:.0f} MiB before, {max(mib):.0f} at most, {mib[-1]:.0f} after."


def own() -> Iterator[str]:
    """Yields the fifth table: pictures of one's own beside CIFAR-10, and what is found in data."""
    yield "| what | n | measured |\n|---|---|---|"
    for what, n, measured in own_rows():
        yield f"| {what} | {n} | {measured} |"


def own_rows() -> Iterator[tuple[str, int, str]]:
    """Yields what was measured, how often, and what came out."""
    rows = {row["what"]: row for row in all_rows("own_data")}
    if row := rows.get("decode"):
        files = f"{row['files']:,} PNG files of 32x32"
        rates, seconds = row["files_per_second"], row["second_start_seconds"]
        yield f"{files}, decoded for the first time", len(rates), f"{statistics.median(rates):,.0f} files/s"
        yield "the same, opened again in a fresh process", len(seconds), f"{statistics.median(seconds):.1f} s"
    if row := rows.get("steps"):
        yield "steps of sprint94 on them, against `cifar10`", row["n"], f"{row['ratio']:.2f} times the images/s"
    if row := rows.get("million"):
        large, small = (f"{row['images'][name]:,} images" for name in ("large", "small"))
        yield f"steps of sprint94 on {large}, against {small}", row["n"], f"{row['ratio']:.2f} times the images/s"
    if row := rows.get("memory"):
        for name, used in row["gib"].items():
            pixels = 3072 * row["images"][name] / 2**30
            what = f"most memory of its own, opening and training on {row['images'][name]:,} images"
            measured = f"{used['anonymous']:.1f} GiB; mapped files besides, {used['mapped']:.1f} GiB (pixels: {pixels:.1f} GiB)"
            yield what, 1, measured
    if row := rows.get("limited"):
        pixels = 3072 * row["images"] / 2**30
        what = f"steps on {pixels:.1f} GiB of pixels with {row['limit_gib']:.1f} GiB of memory in all, against no limit"
        yield what, row["n"], f"{row['ratio']:.2f} times the images/s"
    if row := newest("folder"):
        measured = f"{share(row['val_accuracy'])}, six views {share(row['tta_line']['accuracy'])}"
        yield "sprint94 on the files, CIFAR-10's test images as `val/`", row["n"], measured
    if row := newest("duplicates"):
        count, views = row["repeated_test_images"], row["accuracy"]["six views"]
        yield "CIFAR-10's test images that training images repeat", 1, f"{count:,} of {row['test_images']:,}"
        measured = f"{share(views['all'])}; {share(views['not repeated'])}"
        yield "sprint94 with six views; without these images", row["n"], measured
    for row in all_rows("label_errors"):
        found, by = row["found"], " ".join([row["recipe"], *row["overrides"]])
        what = f"{row['flipped']:,} of {row['n']:,} labels flipped to {row['flipped_to']} class, sought by {by}"
        yield what, 1, f"{found['flagged']:,} found: precision {found['precision']:.1%}, recall {found['recall']:.1%}"


def all_rows(name: str) -> list[dict[str, Any]]:
    """Returns the rows of a result file, none where there is no file."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def newest(name: str) -> dict[str, Any] | None:
    """Returns the newest row of a result file, None where there is none."""
    rows = all_rows(name)
    return rows[-1] if rows else None


def share(figures: dict[str, float] | None) -> str:
    """Returns a mean of shares with its standard deviation."""
    if not figures:
        return "-"
    spread = f" (sd {100 * figures['sd']:.2f})" if figures["sd"] is not None else ""
    return f"{figures['mean']:.2%}{spread}"


def command(recipe: str, row: dict[str, Any]) -> str:
    """Returns what trains with the row's settings, as the recipe stands now."""
    now, then = (dotted(tomllib.loads(text)) for text in (load_config(recipe).to_toml(), row["settings"]))
    changed = [f"{key}={json.dumps(then[key])}" for key in then if now.get(key) != then[key]]
    return f"`{' '.join(['train', recipe, *changed])}`"


def line(name: str, row: dict[str, Any] | None) -> str:
    """Returns the table's line about a row."""
    if row is None:
        return f"| `train {ROWS[name]}` | {'a GPU' if name.endswith('-gpu') else 'any'} | 0 | not measured | | | | |"
    hardware = row["gpu"] or f"{row['cores']} cores, {row['cpu']}"
    views = row.get("tta_line")
    timed = row["train_seconds"] is not None
    seconds = f"{views['seconds']['mean']:.0f} s" if views and timed else "-"
    training, rate = (
        (f"{row['train_seconds']['mean']:.0f} s", f"{row['images_per_second']['mean']:,.0f}") if timed else ("-", "-")
    )
    return (
        f"| {command(ROWS[name], row)} | {hardware}, {row['precision']} | {row['n']} | {share(row['test_accuracy'])} "
        f"| {share(views['accuracy'] if views else None)} | {training} | {seconds} | {rate} |"
    )


def main() -> None:
    """Replaces the tables and the picture."""
    rows = {name: newest(name) for name in ROWS}
    table = "\n".join([HEAD, *(line(name, row) for name, row in rows.items())])
    readme = ROOT / "README.md"
    write_between(readme, "measured", table)
    write_between(readme, "ratios", "\n".join(ratios()))
    write_between(readme, "shipped", "\n".join(shipped()))
    write_between(readme, "served", "\n".join(served()))
    write_between(readme, "own", "\n".join(own()))
    curves, tta_line = {}, {}
    for name, row in rows.items():
        if row and row.get("epoch_train_seconds"):  # the first seed's
            epochs = zip(row["epoch_train_seconds"][0], row["epoch_val_accuracy"][0], strict=True)
            label = command(ROWS[name], row).strip("`").removeprefix("train ")
            curves[label] = [{"train_seconds": seconds, "val_accuracy": accuracy} for seconds, accuracy in epochs]
            if views := row.get("tta_line"):
                tta_line[label] = {key: figures["mean"] for key, figures in views.items()}
    place = ROOT / "docs" / "accuracy_over_time"
    save(partial(accuracy_over_time, curves, 0.94, tta_line), place)
    for picture in place.parent.glob(f"{place.name}*.png"):  # the page shows the SVGs
        picture.unlink()


if __name__ == "__main__":
    main()
