"""`sprintnet tune`: a search whose runs are run folders, and whose journal is what was proposed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from sprintnet.autoconfig import resolve
from sprintnet.config import Config, resumed
from sprintnet.data.load import load_splits
from sprintnet.data.splits import Splits
from sprintnet.errors import DivergedError, SettingsError, SprintNetError
from sprintnet.experiments.placement import Placement
from sprintnet.experiments.study import train_all
from sprintnet.experiments.tuning.search import FRESH_FOLD, Plan, Run, Search, Settings, rank_correlations, search
from sprintnet.experiments.tuning.space import Dimension, propose
from sprintnet.models.transfer import load_pretrained
from sprintnet.runs.folder import RunFolder, dotted, read_json
from sprintnet.runs.io import write_atomic, write_json, write_rows
from sprintnet.training.setup import dataset_facts

MIN_HELD_OUT, MAX_HELD_OUT = 0.02, 0.5
FAILED = {"accuracy": 0.0, "cross-entropy": 100.0}  # of a run that diverged, or whose settings exclude each other
RESERVE = 1.2  # the final test is given this much more time than its runs took so far


@dataclass(frozen=True)
class Tuning:
    """A recipe, the space that is searched, and how."""

    config: Config
    space: tuple[Dimension, ...]
    trials: int
    confirmations: int
    minutes: float
    placement: Placement

    def __post_init__(self) -> None:
        held_out = self.config.data.val
        if held_out == "auto" or not MIN_HELD_OUT <= held_out <= MAX_HELD_OUT:
            raise SettingsError(
                f"data.val={held_out}: a search needs a hold-out to choose by, the test set is never used; set a fraction from "
                f"{MIN_HELD_OUT:g} to {MAX_HELD_OUT:g}, such as data.val=0.1"
            )
        if self.config.data.fold:
            raise SettingsError(f"data.fold={self.config.data.fold}: a search makes its own folds; leave it out")
        if self.config.lr_find:
            raise SettingsError("lr_find=true: would replace the learning rates of the trials; use lr_find=false")


def tune(tuning: Tuning, folder: RunFolder, log: Callable[[str], None]) -> Search:
    """Searches in a folder, or goes on there, and returns what was found.

    Each run is a run folder, `trial-0-epochs-3-seed-0-fold-1`; journal.json has the settings of the trials. Writes trials.csv
    (a row a run), tune.json (the result) and best.toml: the winner's settings, or the recipe's where nothing beats it. Raises
    SettingsError for a training of no epochs.
    """
    started = time.monotonic()
    requested = _resolved(tuning.config)
    if not requested.epochs:
        raise SettingsError("epochs=0: only the last layer is fitted, which chooses its penalty itself; use epochs=3, or more")
    config = tuning.placement.fix_runtime(resumed(folder.config, requested))
    journal = Journal.open(folder, [str(dimension) for dimension in tuning.space])
    folds = round(1 / float(tuning.config.data.val))
    log(f"data.val={tuning.config.data.val:g}: 1 of {folds} parts of the training images held out, another for the final test")
    plan = Plan(_fidelities(config.epochs), tuning.trials, confirmations=tuning.confirmations)
    seconds: dict[Run, float] = {}

    @cache
    def splits(fold: int) -> Splits:
        return load_splits(replace(config.data, fold=f"{fold}/{folds}"), lambda line: None)

    def ask(history: Sequence[tuple[Settings, float]], count: int) -> Sequence[Settings]:
        asked = len(given)
        if len(journal.trials) < asked + count:
            journal.trials.extend(propose(tuning.space, history, count)[len(journal.trials) - asked :])
            journal.write()
        given.extend(journal.trials[asked : asked + count])
        return given[asked:]

    def evaluate(runs: Sequence[Run]) -> list[Mapping[str, float]]:
        configs = {run: _config_of(run, config, ({}, *given)[run.trial], folds) for run in runs}
        failed = {run for run in runs if name_of(run) in journal.failed or configs[run].mistakes()}
        left = [run for run in runs if run not in failed]
        scores: dict[Run, Mapping[str, float]] = {}
        while left:
            parts = [splits(run.fold) for run in left] if tuning.placement.is_here else None
            named = {name_of(run): configs[run] for run in left}
            try:
                for metrics in train_all(named, folder.path, tuning.placement, parts, is_quiet=True):
                    write_atomic(folder.config, config.to_toml())
                    run = left.pop(0)
                    seconds[run] = metrics["train_seconds"]
                    scores[run] = {"accuracy": metrics["val"]["accuracy"], "cross-entropy": metrics["val"]["cross_entropy"]}
                    log(f"{_what(run)}: {scores[run]['accuracy']:.2%}, {metrics['train_seconds']:.0f} s")
            except SprintNetError as error:
                if error.exit_code != DivergedError.exit_code:
                    raise
                run = left.pop(0)
                failed.add(run)
                journal.failed.append(name_of(run))
                journal.write()
                log(f"{_what(run)}: diverged")
        return [scores.get(run, FAILED) for run in runs]

    def has_time(found: Search) -> bool:
        whole = [taken / run.epochs * plan.epochs[-1] for run, taken in seconds.items()]
        reserve = RESERVE * max(whole, default=0.0) * 2 * plan.confirmations / max(tuning.placement.jobs, 1)
        return not tuning.minutes or time.monotonic() - started + reserve < 60 * tuning.minutes

    given: list[Settings] = []
    recipe = {dimension.name: dotted(asdict(config))[dimension.name] for dimension in tuning.space}
    found = search(plan, recipe, ask, evaluate, has_time)
    _write(found, plan, requested, recipe, folder.path, seconds)
    return found


@dataclass
class Journal:
    """What was proposed, and which runs have diverged: the file journal.json of a search."""

    file: Path
    space: list[str]
    trials: list[Settings] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, folder: RunFolder, space: list[str]) -> "Journal":
        """Returns the journal of a search that goes on, or a new one; raises SettingsError for one of another space."""
        folder.path.mkdir(parents=True, exist_ok=True)
        file = folder.path / "journal.json"
        if not folder.config.exists() or not file.exists():  # a start whose first run did not end
            return cls(file, space)
        kept = read_json(file)
        if kept["space"] != space:
            was = "; ".join(kept["space"])
            raise SettingsError(f"{folder.path}: was started with another space ({was}); use it, or another --name")
        return cls(file, **kept)

    def write(self) -> None:
        """Replaces the file."""
        write_json(self.file, {"space": self.space, "trials": self.trials, "failed": self.failed})


def name_of(run: Run) -> str:
    """Returns the folder of a run."""
    return f"trial-{run.trial}-epochs-{run.epochs}-seed-{run.seed}-fold-{run.fold}"


def _what(run: Run) -> str:
    fresh = ", fresh images" * (run.fold == FRESH_FOLD)
    trial = f"trial {run.trial}" if run.trial else "recipe"
    return f"{trial}, {run.epochs} epoch{'s' * (run.epochs > 1)}, seed {run.seed}{fresh}"


def _resolved(config: Config) -> Config:
    """Returns the settings with all that a recipe leaves to the dataset, so that trials differ in the space alone."""
    resolved, _ = resolve(config, dataset_facts(config, load_pretrained(config.init_from, config.model)))
    return resolved


def _config_of(run: Run, config: Config, settings: Settings, folds: int) -> Config:
    data = replace(config.data, fold=f"{run.fold}/{folds}")
    return replace(config.changed(settings), epochs=run.epochs, seed=run.seed, data=data)


def _fidelities(epochs: int) -> tuple[int, ...]:
    """Returns the numbers of epochs of complete trainings, from a quarter of the recipe's to all."""
    return tuple(sorted({max(1, epochs // 4), max(1, epochs // 2), epochs}))


def _write(found: Search, plan: Plan, config: Config, recipe: Settings, folder: Path, seconds: Mapping[Run, float]) -> None:
    rows = [
        {**run._asdict(), **scores, "train_seconds": f"{seconds.get(run, 0):.2f}", **recipe, **found.trials[run.trial]}
        for run, scores in found.scores.items()
    ]
    write_rows(folder / "trials.csv", rows)
    is_better = found.is_better(plan.level)
    best = config.changed(found.trials[found.best]) if is_better else config
    write_atomic(folder / "best.toml", best.to_toml())
    correlations = [
        {"epochs": few, "more_epochs": many, "trials": count, "spearman": correlation if count > 2 else None}
        for few, many, count, correlation in rank_correlations(plan, found)
    ]
    result = {
        "trials": len(found.trials), "runs": len(found.scores), "best": found.best, "is_better": is_better, "level": plan.level,
        "settings": found.trials[found.best], "final": {name: asdict(each) for name, each in found.final.items()},
        "p_values": dict(found.p_values), "looks": [look._asdict() for look in found.looks], "rank_correlations": correlations,
    }  # fmt: skip
    write_json(folder / "tune.json", result)
