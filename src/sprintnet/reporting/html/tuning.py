"""The page of a search, from its folder alone."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sprintnet.reporting.figures.style import save
from sprintnet.reporting.figures.tuning import final_differences, trial_accuracies
from sprintnet.reporting.html.page import figure_uris, render
from sprintnet.reporting.text.tuning import look_text, result_lines, shown_value, trial_name
from sprintnet.runs.folder import read_json, read_rows
from sprintnet.runs.io import write_atomic

FIXED_COLUMNS = ("trial", "epochs", "seed", "fold", "accuracy", "cross-entropy", "train_seconds")


def write_tuning_page(folder: Path) -> Path:
    """Writes tune.html into the folder of a search and returns its path."""
    result, rows = read_json(folder / "tune.json"), read_rows(folder / "trials.csv")
    searched = [row for row in rows if row["seed"] == "0" and row["fold"] == "1"]
    accuracies: dict[int, dict[int, float]] = {}
    for row in searched:
        accuracies.setdefault(int(row["epochs"]), {})[int(row["trial"])] = float(row["accuracy"])
    draws = {"trial_accuracies": partial(trial_accuracies, accuracies, result["best"])}
    if result["final"]:
        found = result["final"]["accuracy"]
        fresh = {(row["trial"], row["seed"]): float(row["accuracy"]) for row in rows if row["fold"] == "2"}
        seeds = sorted({seed for _, seed in fresh})
        pairs = [(fresh["0", seed], fresh[str(result["best"]), seed]) for seed in seeds]
        draws["final_differences"] = partial(final_differences, pairs, found["low"], found["high"])
    with TemporaryDirectory() as temporary:
        figures = {name: figure_uris(save(draw, Path(temporary) / name, for_phones=True)) for name, draw in draws.items()}
    tables = {
        "Trials": _trials(rows, accuracies),
        "Paired t-tests against the best so far": _looks(result["looks"]),
        "Do short trainings rank the trials as long ones do?": _correlations(result["rank_correlations"]),
    }
    page = folder / "tune.html"
    lines = [f"{line[0].upper()}{line[1:]}{'.' * (not line.endswith(':'))}" for line in result_lines(result)]
    write_atomic(page, render("tuning.html.jinja", figures, name=f"Search {folder.name}", lines=lines, tables=tables))
    return page


def _trials(rows: Sequence[Mapping[str, str]], accuracies: Mapping[int, Mapping[int, float]]) -> dict[str, Any]:
    settings = [name for name in rows[0] if name not in FIXED_COLUMNS]
    values = {int(row["trial"]): [shown_value(row[name]) for name in settings] for row in rows}

    def cells(trial: int) -> Iterator[str]:
        for _, by_trial in sorted(accuracies.items()):
            yield f"{by_trial[trial]:.2%}" if trial in by_trial else "-"

    table = [[str(trial) if trial else "0, the recipe", *shown, *cells(trial)] for trial, shown in sorted(values.items())]
    return {
        "heads": ["trial", *settings, *(f"{epochs} epoch{'s' * (epochs > 1)}" for epochs in sorted(accuracies))],
        "rows": table,
    }


def _looks(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [[trial_name(look["trial"]), trial_name(look["best"]), *look_text(look)] for look in found]
    return {"heads": ["trial", "against", "difference of mean accuracies", "after", "p-value"], "rows": rows}


def _correlations(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        [f"{each['epochs']} and {each['more_epochs']} epochs", str(each["trials"]), _number(each["spearman"])] for each in found
    ]
    return {"heads": ["numbers of epochs", "trials with both", "Spearman's rank correlation"], "rows": rows}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
