"""Tables of sets of classes, unknown images and ensembles, from benchmarks/results."""

from collections.abc import Iterator

from record import spread
from rows import Row, command, hardware, measured, newest, share


def sets() -> Iterator[str]:
    """Yields the tables of sets of classes: how many have the true class, and how large they are."""
    for row in newest("sets", "recipe", "settings"):
        yield from of_runs(row)
        yield "| asked for | method | of each class | sets with the true class | of the worst class | classes in a set |"
        yield "|" + "---|" * 6
        for found in row["sets"]:
            covered, lowest = (share(found[key], row["n"]) for key in ("covered", "lowest_class"))
            by_class = "yes" if found["by_class"] else "no"
            cells = (
                f"{found['coverage']:.0%}",
                found["method"],
                by_class,
                covered,
                lowest,
                f"{found['mean_size']['mean']:.2f}",
            )
            yield f"| {' | '.join(cells)} |"


def unknown() -> Iterator[str]:
    """Yields the tables of images of other kinds: how well scores tell them from known ones, and how many are marked."""
    for row in newest("unknown", "recipe", "settings"):
        yield from of_runs(row)
        yield "| images | number | ROC AUC of novelty | of energy | of 1 - largest probability | marked by `--unknown 0.05` |"
        yield "|" + "---|" * 6
        for kind, scores in row["kinds"].items():
            areas = [area(scores.get(name), row["n"]) for name in ("novelty", "energy", "softmax")]
            yield f"| {kind} | {row['images'][kind]:,} | {' | '.join(areas)} | {share(scores['marked'], row['n'])} |"


def of_runs(row: Row) -> Iterator[str]:
    """Yields the line over the table of a row."""
    yield f"`{command(row['recipe'], row)}`, {row['n']} seeds, on {hardware(row)} ({measured(row)}):\n"


def area(values: dict[str, float] | None, n: int) -> str:
    """Returns a mean area under the curve of n runs, of three or more with its standard deviation."""
    if not values:
        return "-"
    return f"{values['mean']:.3f}" + (f" (sd {values['sd']:.3f})" if n > 2 else "")


def ensembles() -> Iterator[str]:
    """Yields the table of ensembles beside their members, and of the networks that were trained towards their answers."""
    yield "| what predicts | accuracy | gain, points | with TTA | gain, points | ECE | n | hardware | date, commit |"
    yield "|" + "---|" * 9
    for row in newest("ensembles", "recipe", "settings"):
        gains, place = row["gain"], f"{hardware(row)} | {measured(row)}"
        n = len(gains["accuracy"]["members"])
        members = [share(spread(gain["members"]), n) for gain in gains.values()]
        yield f"| a member: `{command(row['recipe'], row)}` | {' | | '.join(members)} | | | {n} | {place} |"
        scores = {"accuracy": row["accuracy"], "tta_accuracy": row["tta"]["accuracy"]}
        cells = [f"{scores[key]:.2%} | {points(gain['gain'], *gain['gain_interval'])}" for key, gain in gains.items()]
        yield f"| their ensemble | {' | '.join(cells)} | {row['ece_calibrated']:.2%} | 1 | {place} |"
        if found := row.get("students"):
            each = [found[key] for key in gains]
            cells = [f"{share(one, n)} | {points(one['difference'], one['low'], one['high'])}" for one in each]
            yield f"| a student of it | {' | '.join(cells)} | {share(found['ece_calibrated'], n)} | {n} | {place} |"


def points(difference: float, low: float, high: float) -> str:
    """Returns a difference of accuracies in points, with its interval."""
    return f"{100 * difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
