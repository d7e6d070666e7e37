"""The result of a search, as lines for the terminal and the page."""

import math
from collections.abc import Iterator, Mapping
from typing import Any


def result_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a search has found (the content of tune.json)."""
    yield f"{result['trials']} trials (the recipe is trial 0), {result['runs']} runs; the test set was not used"
    if not result["final"]:
        last = {look["trial"]: look for look in result["looks"]}
        if not last:
            yield "no trial was shown to be better: the recipe led the shorter trainings"
            return
        yield "no trial was shown to be better by the paired t-tests of the search:"
        for look in last.values():
            yield f"trial {look['trial']} against {trial_name(look['best'])}: {', '.join(look_text(look))}"
        return
    settings = " ".join(f"{name}={shown_value(value)}" for name, value in result["settings"].items())
    yield f"the best is trial {result['best']}: {settings}"
    accuracy = result["final"]["accuracy"]
    margin = f"95% interval {100 * accuracy['low']:+.2f} to {100 * accuracy['high']:+.2f}"
    if math.isnan(accuracy["low"]):
        margin = "no interval: the seeds differ by the same, so that the spread is unknown"
    adjusted = result["p_values"]["accuracy"]
    p_value = "p < 0.001" if adjusted < 0.001 else f"p = {adjusted:.3f}"
    test = f"paired t-test, {p_value}, adjusted by Holm's method for {len(result['final'])} metrics"
    means = f"{accuracy['b']['mean']:.2%} against the recipe's {accuracy['a']['mean']:.2%}"
    seeds = f"trained again with {accuracy['a']['n']} fresh seeds, on images that the search did not choose by"
    yield f"{seeds}: {means}, a difference of {100 * accuracy['difference']:+.2f} points ({margin}; {test})"
    if result["is_better"]:
        yield "it is better"
    else:
        level = f"{result['level']:.0%}"
        yield f"not shown to be better at the {level} level: best.toml is the recipe; more fresh seeds could show more"


def trial_name(trial: int) -> str:
    """Returns what a trial is called in a sentence."""
    return f"trial {trial}" if trial else "the recipe"


def look_text(look: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns difference, seeds and p-value of a paired test of the search."""
    p_value = "p < 0.001" if look["p"] < 0.001 else f"p = {look['p']:.3f}"
    points = f"{100 * look['difference']:+.2f} points"
    return points, f"{look['seeds']} seeds", f"{p_value}, better below {look['level']:.4g}"


def shown_value(value: Any) -> str:
    """Returns the value of a setting, or its text, with three significant digits."""
    try:
        return f"{float(value):.3g}" if not isinstance(value, bool) else str(value).lower()
    except ValueError:
        return str(value)
