"""Writes the tables of README.md and docs/reference/results.md, and the accuracy chart, from benchmarks/results.

    python benchmarks/headline.py

A table shows the newest row of each measurement on each kind of hardware (processor or GPU, cores, precision), with its date
and commit. The tables replace the text between their marks.
"""

import statistics
import tomllib
from collections.abc import Iterator
from functools import partial

from document import write_between
from predictions import ensembles, sets, unknown
from record import spread
from rows import ROOT, Row, command, commit, hardware, measured, newest, of_newest_code, processor_name, share
from speed import beside_peers, kernel_rates, optimisations, speed
from sprintnet.reporting.figures.curves import accuracy_over_time
from sprintnet.reporting.figures.style import save
from sprintnet.reporting.text.times import seconds_text

RECIPES = {
    "sprint94": "sprint94",
    "sprint95": "sprint95",
    "sprint95-long": "sprint95-long",
    "davidnet-24-epochs": "davidnet",
    "fashion-mnist": "sprint94",
    "smoke": "smoke",
    "sprint94-gpu": "sprint94",
    "sprint95-gpu": "sprint95",
    "sprint95-long-gpu": "sprint95-long",
    "davidnet-24-epochs-gpu": "davidnet",
}
"""Result file -> recipe."""
AUGMENTED = [("sprint94", 1000), ("sprint94", 4000), ("sprint94", 45_000), ("sprint95", 45_000), ("sprint95-long", 45_000)]
"""Recipes and numbers of CIFAR-10's images that augmentations are tried on."""


def held_out(row: Row) -> object:
    """Returns how many of the training images a row's runs held out: the setting data.val."""
    return tomllib.loads(row["settings"])["data"]["val"]


def recipes() -> Iterator[str]:
    """Yields the table of recipes: accuracy and training time."""
    yield "| command | hardware | n | accuracy | TTA accuracy | training | TTA | images/s | date, commit |"
    yield "|" + "---|" * 9
    for name, recipe in RECIPES.items():
        timed, untimed = newest(name, held_out, having="train_seconds"), newest(name, held_out)
        rows = timed + [row for row in untimed if not row["train_seconds"]]
        if not rows:
            where, how = ("a GPU", " (`benchmarks/gpu.py`)") if name.endswith("-gpu") else ("any", "")
            yield f"| `train {recipe}` | {where} | 0 | not measured{how} | | | | | |"
        for row in rows:
            tta = row.get("tta") or {}
            seconds = rate = tta_seconds = "-"
            if row["train_seconds"]:
                seconds, rate = seconds_text(row["train_seconds"]["mean"]), f"{row['images_per_second']['mean']:,.0f}"
                tta_seconds = seconds_text(tta["seconds"]["mean"]) if tta else "-"
            yield (
                f"| `{command(recipe, row)}` | {hardware(row)} | {row['n']} | {share(row['test_accuracy'], row['n'])} "
                f"| {share(tta.get('accuracy'), row['n'])} | {seconds} | {tta_seconds} | {rate} | {measured(row)} |"
            )


def headline() -> Iterator[str]:
    """Yields the short table of the recipes that were timed on CIFAR-10."""
    yield "| `sprintnet train` | hardware | accuracy | with TTA | training | n | date, commit |\n|" + "---|" * 7
    for name in ("sprint94", "sprint95", "sprint95-long", "davidnet-24-epochs"):
        kinds = (name, f"{name}-gpu")
        for row in [row for kind in kinds for row in newest(kind, held_out, having="train_seconds")]:
            tta = share((row.get("tta") or {}).get("accuracy"), row["n"])
            seconds = seconds_text(row["train_seconds"]["mean"])
            cells = (hardware(row), share(row["test_accuracy"], row["n"]), tta, seconds, str(row["n"]), measured(row))
            yield f"| `{command(RECIPES[name], row).removeprefix('train ')}` | {' | '.join(cells)} |"


def shipped() -> Iterator[str]:
    """Yields the tables of exported files: size, accuracy, agreement with the network, and speed beside PyTorch."""
    for row in newest("shipping"):
        eager = row["pytorch"]["PyTorch fp32"]
        yield f"On {hardware(row)} ({measured(row)}):\n"
        yield "| | size | accuracy | agreement | latency, 1 image | p99 | speedup | images/s, batch 256 | speedup |"
        yield "|" + "---|" * 9
        for name, found in {**row["files"], **row["pytorch"]}.items():
            single, batch = (found[key] / eager[key] for key in ("images_per_second_1", "images_per_second_256"))
            quality = "| |"
            if "bytes" in found:
                quality = f"{found['bytes'] / 1e6:.1f} MB | {found['accuracy']:.2%} | {found['agreement']:.2%}"
            yield (
                f"| {name} | {quality} | {found['ms_1']:.2f} ms | {found['ms_p99_1']:.2f} ms | {single:.1f} "
                f"| {found['images_per_second_256']:,.0f} | {batch:.2f} |"
            )


def served() -> Iterator[str]:
    """Yields the tables of the server under load and overload, and its memory."""
    for row in newest("serve"):
        yield f"On {hardware(row)} ({measured(row)}):\n"
        yield "| clients | requests/s | median latency | p99 | rejected (503) |\n|" + "---|" * 5
        for load in (*row["load"], row["overload"]):
            rejected = load["statuses"].get("503", 0) / sum(load["statuses"].values())
            yield (
                f"| {load['clients']} | {load['answered_per_second']:,.0f} | {load['answered_ms_p50']:.1f} ms "
                f"| {load['answered_ms_p99']:.1f} ms | {rejected:.0%} |"
            )
        mib, requests = row["memory"]["mib"], row["memory"]["requests"]
        memory = f"{mib[0]:.0f} MiB before, {max(mib):.0f} peak, {mib[-1]:.0f} after"
        yield f"\nResident memory over {requests:,} requests: {memory}."


def custom() -> Iterator[str]:
    """Yields the table of custom datasets: decoding, training, memory, duplicates, label errors."""
    yield "| measurement | n | result | hardware | date, commit |\n|" + "---|" * 5
    for row, what, n, result in custom_rows():
        yield f"| {what} | {n} | {result} | {hardware(row)} | {measured(row)} |"


def custom_rows() -> Iterator[tuple[Row, str, int, str]]:
    """Yields rows with what was measured, how often, and the result."""
    for row in newest("custom_data", "what"):
        for what, n, result in custom_data_rows(row):
            yield row, what, n, result
    for row in newest("folder"):
        result = f"{share(row['val_accuracy'], row['n'])}, TTA {share(row['tta']['accuracy'], row['n'])}"
        yield row, "sprint94 on the files, CIFAR-10's test images as `val/`", row["n"], result
    for row in newest("duplicates"):
        plain, tta = row["accuracy"]["plain"], row["accuracy"]["tta"]
        repeated = f"{row['repeated_test_images']:,} of {row['test_images']:,}"
        yield row, "CIFAR-10's test images found to repeat training images", 1, repeated
        for what, key in (("all test images", "all"), ("without the repeated test images", "not repeated")):
            yield (
                {**row, "commit": row["runs_commit"][0]},
                f"sprint94, {what}",
                row["n"],
                f"{share(plain[key], row['n'])}, TTA {share(tta[key], row['n'])}",
            )
    for row in newest("label_errors", "settings", "flipped", "flipped_to"):
        found, arguments = row["found"], " ".join([row["recipe"], *row["overrides"]])
        wrong, n = f"{row['flipped']:,}", f"{row['n']:,}"
        what = f"{wrong} of {n} labels flipped to {row['flipped_to']} class, searched with {arguments}"
        if row["flipped_to"].endswith("_label"):
            what = f"{wrong} of {n} labels of people wrong (CIFAR-10N, {row['flipped_to']}), searched with {arguments}"
        result = f"{found['flagged']:,} flagged: precision {found['precision']:.1%}, recall {found['recall']:.1%}"
        yield row, what, 1, result


def custom_data_rows(row: Row) -> Iterator[tuple[str, int, str]]:
    """Yields what a row of custom_data.jsonl measured, how often, and the result."""
    match row["what"]:
        case "decode":
            rates, seconds = row["files_per_second"], row["second_start_seconds"]
            yield f"{row['files']:,} PNG files of 32x32, first decoding", len(rates), f"{statistics.median(rates):,.0f} files/s"
            yield "the same, opened again in a new process", len(seconds), f"{statistics.median(seconds):.1f} s"
        case "steps":
            what = "training steps of sprint94 on them, relative to `cifar10`"
            yield what, row["n"], f"{row['ratio']:.2f} times the images/s"
        case "million":
            large, small = (f"{row['images'][name]:,}" for name in ("large", "small"))
            what = f"training steps of sprint94 on {large} images, relative to {small}"
            yield what, row["n"], f"{row['ratio']:.2f} times the images/s"
        case "memory":
            for name, used in row["gib"].items():
                pixels = f"pixels: {3072 * row['images'][name] / 2**30:.1f} GiB"
                result = f"{used['anonymous']:.1f} GiB, and {used['mapped']:.1f} GiB of mapped files ({pixels})"
                yield f"peak process memory, opening and training on {row['images'][name]:,} images", 1, result
        case "limited":
            pixels = f"{3072 * row['images'] / 2**30:.1f} GiB of pixels with {row['limit_gib']:.1f} GiB of memory"
            yield f"training steps on {pixels}, relative to no limit", row["n"], f"{row['ratio']:.2f} times the images/s"


def calibrated() -> Iterator[str]:
    """Yields the table of accuracy and calibration, as trained, calibrated and exported."""
    yield "| command | what predicts | accuracy | ECE | n | hardware | date, commit |\n|" + "---|" * 7
    kinds = of_newest_code("calibration", "recipe", "settings")
    for recipe in [recipe for recipe in ("sprint94", "davidnet") if recipe not in {rows[0]["recipe"] for rows in kinds}]:
        yield f"| `train {recipe}` | not measured: `python benchmarks/calibration.py {recipe} RUN...` | | | 0 | | |"
    for rows in kinds:
        recipe = rows[-1]["recipe"]
        for what in [what for what in rows[-1]["found"] if all(what in row["found"] for row in rows)]:
            scores = [share(spread([row["found"][what][key] for row in rows]), len(rows)) for key in ("accuracy", "ece")]
            cells = [*scores, str(len(rows)), hardware(rows[-1]), measured(rows[-1])]
            yield f"| `{command(recipe, rows[-1])}` | {what} | {' | '.join(cells)} |"


def augmentations() -> Iterator[str]:
    """Yields the table of what mixup, CutMix, TrivialAugment and an average of the weights gain on a recipe."""
    yield "| recipe | training images | setting | accuracy | difference, points (95% CI) | p | n | hardware | date, commit |"
    yield "|" + "---|" * 9
    rows = newest("augmentations", "recipe", "images", "setting")
    for recipe, images in AUGMENTED:
        measured_ones = [row for row in rows if (row["recipe"], row["images"]) == (recipe, images)]
        if not measured_ones:
            how = f"not measured: `python benchmarks/augmentations.py {recipe} {images}`"
            yield f"| {recipe} | {images:,} | {how} | | | | 0 | | |"
        for row in measured_ones:
            n, difference, p = len(row["accuracies"]), "-", "-"
            if row["setting"]:
                difference = "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * row[key] for key in ("difference", "low", "high")))
                p = f"{row['p']:.3f}"
            setting = f"`{row['setting']}`" if row["setting"] else "as it is"
            cells = [share(spread(row["accuracies"]), n), difference, p, str(n), hardware(row), measured(row)]
            yield f"| {recipe} | {images:,} | {setting} | {' | '.join(cells)} |"


TABLES = {
    ROOT / "README.md": {"headline": headline, "peers": beside_peers},
    ROOT / "docs" / "reference" / "results.md": {
        "recipes": recipes, "speed": speed, "kernels": kernel_rates, "optimisations": optimisations,
        "calibrated": calibrated, "sets": sets, "unknown": unknown, "ensembles": ensembles,
        "augmentations": augmentations,
        "shipped": shipped, "served": served, "custom": custom,
    },
}  # fmt: skip
"""Document -> mark -> what yields the lines of the table there."""


def draw_accuracy_over_time() -> None:
    """Draws the chart of accuracy over training time, of the first seed of each recipe that was timed on a processor."""
    curves, tta = {}, {}
    for file, recipe in RECIPES.items():
        for row in newest(file, held_out):
            if row.get("epoch_train_seconds") and not held_out(row):  # else its epochs have the accuracy of held-out images
                label = f"{recipe}, {row.get('gpu') or processor_name(row)}, {commit(row)}"
                epochs = zip(row["epoch_train_seconds"][0], row["epoch_val_accuracy"][0], strict=True)
                curves[label] = [{"train_seconds": seconds, "val_accuracy": accuracy} for seconds, accuracy in epochs]
                if row.get("tta"):
                    tta[label] = {key: values["mean"] for key, values in row["tta"].items()}
    place = ROOT / "docs" / "figures" / "accuracy_over_time"
    save(partial(accuracy_over_time, curves, 0.94, tta), place)
    for image in place.parent.glob(f"{place.name}*.png"):  # the page shows the SVGs
        image.unlink()


def main() -> None:
    """Replaces the tables and the chart."""
    for document, tables in TABLES.items():
        for mark, table in tables.items():
            write_between(document, mark, "\n".join(table()))
    draw_accuracy_over_time()


if __name__ == "__main__":
    main()
