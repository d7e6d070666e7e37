"""The search itself: which trials are trained for how long, when one is better, and the test of the winner."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scipy import stats

from sprintnet.experiments.compare import Comparison, compare

Settings = Mapping[str, Any]
SEARCH_FOLD, FRESH_FOLD = 1, 2
FRESH_SEED = 1000  # the first seed of the final test; the search takes those from 0 on
METRICS = ("accuracy", "cross-entropy")


class Run(NamedTuple):
    """A run of a trial: complete, with this number of epochs and seed, evaluated on this fold."""

    trial: int
    epochs: int
    seed: int
    fold: int


@dataclass(frozen=True)
class Plan:
    """How a search is done: `trials`, with the recipe, in brackets of `bracket`, of which one in `keep` is trained longer."""

    epochs: tuple[int, ...]
    trials: int = 27
    bracket: int = 9
    keep: int = 3
    level: float = 0.05
    """Of each test of a trial against the best so far, spent over its looks, and of the final test."""
    looks: tuple[int, ...] = (3, 4, 5, 6)
    """Numbers of seeds after which a trial is compared with the best so far."""
    confirmations: int = 5
    """Fresh seeds of the final test."""


class Look(NamedTuple):
    """A paired test of a trial against the best so far: the difference of their mean accuracies, and its p-value."""

    trial: int
    best: int
    seeds: int
    difference: float
    p: float
    level: float


@dataclass
class Search:
    """What was found; trial 0 is the recipe."""

    trials: list[Settings] = field(default_factory=lambda: [{}])
    scores: dict[Run, Mapping[str, float]] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    best: int = 0
    final: Mapping[str, Comparison] = field(default_factory=dict)
    """Of each metric: the best trial against the recipe, on fresh seeds and images; empty where the recipe is the best."""
    p_values: Mapping[str, float] = field(default_factory=dict)
    """The same, adjusted for the number of metrics (Holm 1979)."""

    def is_better(self, level: float) -> bool:
        """Returns whether the best trial has a higher accuracy than the recipe, at this level."""
        return bool(self.final) and self.final["accuracy"].difference > 0 and self.p_values["accuracy"] < level


Evaluate = Callable[[Sequence[Run]], Sequence[Mapping[str, float]]]
"""Returns accuracy and cross-entropy of runs."""
Propose = Callable[[Sequence[tuple[Settings, float]], int], Sequence[Settings]]
"""Returns settings of new trials, given those so far with their accuracies."""


def search(
    plan: Plan,
    recipe: dict[str, Any],
    propose: Propose,
    evaluate: Evaluate,
    has_time: Callable[[Search], bool] = lambda found: True,
) -> Search:
    """Searches until the trials, or the time, are used up; `recipe` has the recipe's values of the settings.

    All runs of the search have the same hold-out, and trials of one number of epochs the same seeds, so that differences are
    paired. In a bracket, successive halving (Jamieson and Talwalkar 2016) by complete shorter trainings; the trial that is left
    is tested against the best so far. The winner is then tested against the recipe with fresh seeds on fresh images.
    """
    found = Search()
    while len(found.trials) < plan.trials and has_time(found):
        history = [
            (recipe | dict(settings), found.scores[run]["accuracy"])
            for trial, settings in enumerate(found.trials)
            if (run := Run(trial, plan.epochs[0], 0, SEARCH_FOLD)) in found.scores
        ]
        is_first = len(found.trials) == 1  # a bracket with the recipe
        new = propose(history, min(plan.bracket - is_first, plan.trials - len(found.trials)))
        candidates = list(range(0 if is_first else len(found.trials), len(found.trials) + len(new)))
        found.trials += new
        for epochs in plan.epochs[:-1]:
            runs = {Run(trial, epochs, 0, SEARCH_FOLD): trial for trial in candidates}
            _train(found, evaluate, list(runs))
            ranked = sorted(runs, key=lambda run: -found.scores[run]["accuracy"])
            candidates = [runs[run] for run in ranked[: max(1, len(ranked) // plan.keep)]]
        for challenger in candidates:
            if challenger != found.best and beats(plan, found, challenger, evaluate):
                found.best = challenger
    if found.best:
        confirm(plan, found, evaluate)
    return found


def beats(plan: Plan, found: Search, challenger: int, evaluate: Evaluate) -> bool:
    """Returns whether a trial is better than the best so far: by a paired t-test at each look, at an equal part of the level.

    The test ends early where the challenger is not ahead.
    """
    for seeds in plan.looks:
        pair = [[Run(trial, plan.epochs[-1], seed, SEARCH_FOLD) for seed in range(seeds)] for trial in (found.best, challenger)]
        _train(found, evaluate, [*pair[0], *pair[1]])
        before, after = ([found.scores[run]["accuracy"] for run in runs] for runs in pair)
        result = compare(before, after, is_paired=True)
        level = plan.level / len(plan.looks)
        found.looks.append(Look(challenger, found.best, seeds, result.difference, result.p, level))
        if result.difference <= 0:
            return False
        if result.p < level:
            return True
    return False


def confirm(plan: Plan, found: Search, evaluate: Evaluate) -> None:
    """Trains the best trial and the recipe with fresh seeds, evaluates them on fresh images and compares all metrics."""
    seeds = range(FRESH_SEED, FRESH_SEED + plan.confirmations)
    pair = [[Run(trial, plan.epochs[-1], seed, FRESH_FOLD) for seed in seeds] for trial in (0, found.best)]
    _train(found, evaluate, [*pair[0], *pair[1]])
    found.final = {
        metric: compare(*([found.scores[run][metric] for run in runs] for runs in pair), is_paired=True) for metric in METRICS
    }
    found.p_values = dict(zip(METRICS, holm([result.p for result in found.final.values()]), strict=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns adjusted p-values (Holm 1979): all below a level are significant together at that level."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted


def rank_correlations(plan: Plan, found: Search) -> list[tuple[int, int, int, float]]:
    """Returns (fewer epochs, more epochs, trials, Spearman's correlation) of the accuracies of trials that have both."""
    rows = []
    for few, many in zip(plan.epochs, plan.epochs[1:], strict=False):
        runs = [(Run(trial, few, 0, SEARCH_FOLD), Run(trial, many, 0, SEARCH_FOLD)) for trial in range(len(found.trials))]
        pairs = [(found.scores[a]["accuracy"], found.scores[b]["accuracy"]) for a, b in runs if {a, b} <= found.scores.keys()]
        first, second = ([pair[side] for pair in pairs] for side in (0, 1))
        is_defined = len(pairs) > 2 and min(len(set(first)), len(set(second))) > 1
        correlation = float(stats.spearmanr(first, second).statistic) if is_defined else math.nan
        rows.append((few, many, len(pairs), correlation))
    return rows


def _train(found: Search, evaluate: Evaluate, runs: Sequence[Run]) -> None:
    """Adds the scores of runs that are not known yet."""
    new = [run for run in dict.fromkeys(runs) if run not in found.scores]
    found.scores.update(zip(new, evaluate(new), strict=True))
