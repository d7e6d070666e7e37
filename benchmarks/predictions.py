"""The tables of sets of classes, unknown images and ensembles, from benchmarks/results."""

from collections.abc import Callable, Iterator

from record import spread
from rows import Row, command, hardware, measured, newest, share


def sets() -> Iterator[str]:
    """Yields the tables of sets of classes: how many have the true class, and how large they are."""
    yield from of_each_row("sets", _sets)


def unknown() -> Iterator[str]:
    """Yields the tables of images of other kinds: how well scores tell them from known ones, and how many are marked."""
    yield from of_each_row("unknown", _unknown)


def of_each_row(name: str, table: Callable[[Row], Iterator[str]]) -> Iterator[str]:
    """Yields a table of each row of a result file, under a line that says of which runs it is."""
    rows = newest(name, "recipe", "settings")
    if not rows:
        yield f"Not measured: `python benchmarks/{name}.py sprint94 runs/study/sprint94/seed-*`"
    for row in rows:
        yield f"`{command(row['recipe'], row)}`, {row['n']} seeds, on {hardware(row)} ({measured(row)}):\n"
        yield from table(row)


def _sets(row: Row) -> Iterator[str]:
    yield (
        "| asked for | method | per class | sets with the true class | of the worst class | classes in a set |\n|" + "---|" * 6
    )
    for found in row["sets"]:
        covered, lowest = (share(found[key], row["n"]) for key in ("covered", "lowest_class"))
        asked, by_class = f"{found['coverage']:.0%}", "yes" if found["by_class"] else "no"
        yield f"| {asked} | {found['method']} | {by_class} | {covered} | {lowest} | {found['mean_size']['mean']:.2f} |"


def _unknown(row: Row) -> Iterator[str]:
    yield "| images | number | ROC AUC of novelty | of energy | of 1 - largest probability | marked by `--unknown 0.05` |"
    yield "|" + "---|" * 6
    for kind, scores in row["kinds"].items():
        areas = [area(scores.get(name), row["n"]) for name in ("novelty", "energy", "softmax")]
        yield f"| {kind} | {row['images'][kind]:,} | {' | '.join(areas)} | {share(scores['marked'], row['n'])} |"


def area(values: dict[str, float] | None, n: int) -> str:
    """Returns a mean area under the curve of n runs, of three or more with its standard deviation."""
    if not values:
        return "-"
    return f"{values['mean']:.3f}" + (f" (sd {values['sd']:.3f})" if n > 2 else "")


def ensembles() -> Iterator[str]:
    """Yields the table of ensembles beside their members, and of the networks that were trained towards their predictions."""
    rows = newest("ensembles", "recipe", "settings")
    if not rows:
        yield "Not measured: `python benchmarks/ensembles.py sprint94 runs/train/sprint94-ensemble`"
        return
    gain = "gain, points (95% CI)"
    yield f"| what predicts | accuracy | {gain} | with TTA | {gain} | ECE | n | hardware | date, commit |"
    yield "|" + "---|" * 9
    for row in rows:
        gains, place = row["gain"], f"{hardware(row)} | {measured(row)}"
        n = len(gains["accuracy"]["members"])
        scores = {"accuracy": row["accuracy"], "tta_accuracy": row.get("tta", {}).get("accuracy")}
        of_members = cells({key: f"{share(spread(gain['members']), n)} | " for key, gain in gains.items()})
        of_ensemble = cells(
            {key: f"{scores[key]:.2%} | {points(gain['gain'], *gain['gain_interval'])}" for key, gain in gains.items()}
        )
        yield f"| a member: `{command(row['recipe'], row)}` | {of_members} | | {n} | {place} |"
        yield f"| their ensemble | {of_ensemble} | {row['ece_calibrated']:.2%} | 1 | {place} |"
        if found := row.get("students"):
            each = {key: found[key] for key in gains}
            gained = {
                key: f"{share(one, n)} | {points(one['difference'], one['low'], one['high'])}" for key, one in each.items()
            }
            yield f"| a student of it | {cells(gained)} | {share(found['ece_calibrated'], n)} | {n} | {place} |"


def cells(found: dict[str, str]) -> str:
    """Returns accuracy and gain without and with TTA, empty where the recipe has none."""
    return " | ".join(found.get(key, "- | -") for key in ("accuracy", "tta_accuracy"))


def points(difference: float, low: float, high: float) -> str:
    """Returns a difference of accuracies in points, with its interval."""
    return f"{100 * difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
