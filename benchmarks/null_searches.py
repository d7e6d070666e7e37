"""Searches over settings that change nothing: how often one is called better, of 1,000 simulated ones.

    python benchmarks/null_searches.py --searches 1000
    python benchmarks/null_searches.py --searches 200 --effect 0.005    # of settings that gain half a point at best

The accuracies are those of sprint94's seeds in size and spread: sd 0.2 points, half of the variance shared by the runs of one
seed. Appends a row to benchmarks/results/null-searches.jsonl.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sprintnet.experiments.tuning.search import Plan, Run, Settings, search
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "null-searches.jsonl"
PLAN = Plan((3, 6, 13))
MEAN, SD = 0.93, 0.002


class Simulation:
    """Trainings whose accuracies are known but for noise: the setting x, 0 to 1, gains at most `effect`, at 0.5."""

    def __init__(self, seed: int, effect: float = 0.0):
        self.generator, self.effect, self.asked = np.random.default_rng(seed), effect, list[Run]()
        self.settings: list[Settings] = [{"x": 0.0}]
        self.seed = seed

    def propose(self, history: Sequence[tuple[Settings, float]], count: int) -> list[Settings]:
        """Returns random settings: a proposer that learns cannot learn more from noise."""
        new: list[Settings] = [{"x": float(self.generator.random())} for _ in range(count)]
        self.settings += new
        return new

    def evaluate(self, runs: Sequence[Run]) -> list[Mapping[str, float]]:
        """Returns the metrics of runs."""
        self.asked += runs
        return [self._metrics(run) for run in runs]

    def gain(self, settings: Settings) -> float:
        """Returns the share of the effect that a setting has."""
        return max(0.0, 1 - 2 * abs(settings["x"] - 0.5))

    def _metrics(self, run: Run) -> dict[str, float]:
        shared, own = (
            np.random.default_rng([self.seed, *key]).normal(0, SD / 2**0.5)
            for key in ((run.seed, run.fold, run.epochs), (*run, 1))
        )
        accuracy = MEAN + self.effect * self.gain(self.settings[run.trial]) + float(shared + own)
        return {"accuracy": accuracy, "cross-entropy": 1 - accuracy}


def count_claims(searches: int, seed: int, effect: float = 0.0) -> tuple[int, int]:
    """Returns how many searches call a setting better, and how many had a winner for the final test."""
    claims = finalists = 0
    for number in range(searches):
        simulation = Simulation(seed + number, effect)
        found = search(PLAN, {"x": 0.0}, simulation.propose, simulation.evaluate)
        claims, finalists = claims + found.is_better(PLAN.level), finalists + (found.best > 0)
    return claims, finalists


def main() -> None:
    """Simulates, prints and appends the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=1000)
    parser.add_argument("--effect", type=float, default=0.0, help="accuracy that the best value of the setting gains")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    claims, finalists = count_claims(options.searches, 0, options.effect)
    found = {"called_better": claims, "with_a_winner": finalists}
    plan = {"level": PLAN.level, "trials": PLAN.trials, "confirmations": PLAN.confirmations}
    row: dict[str, Any] = {"searches": options.searches, "effect": options.effect, **found, **plan}
    print(row)
    append_row(options.output, row)


if __name__ == "__main__":
    main()
