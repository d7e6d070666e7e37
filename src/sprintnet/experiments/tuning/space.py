"""The space of a search: the settings that it changes, and the values that each may take."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sprintnet.config import Config, load_config
from sprintnet.errors import SettingsError, did_you_mean
from sprintnet.runs.folder import dotted

FIXED = ("epochs", "seed", "auto", "lr_find", "threads", "device", "precision", "checkpoint_seconds", "deterministic")
"""Settings that a search sets itself, or that decide where and how fast a run is trained; so do those of `data`."""
EXAMPLE = '"optim.max_lr" = {low = 0.1, high = 10, log = true}, or label_smoothing = [0, 0.1, 0.2]'
RANGE_KEYS = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Dimension:
    """A setting with its choices, or a range from `low` to `high`: in steps, or evenly on a logarithmic scale."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    def distribution(self) -> Any:
        """Returns Optuna's distribution."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return distributions.IntDistribution(self.low, self.high, self.log, int(self.step or 1))
        return distributions.FloatDistribution(self.low, self.high, self.log, self.step)

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name}: {', '.join(map(str, self.choices))}"
        scale = f", in steps of {self.step:g}" if self.step else ", logarithmic" if self.log else ""
        return f"{self.name}: {self.low:g} to {self.high:g}{scale}"


def read_space(file: Path, config: Config, recipe: str, overrides: Sequence[str]) -> list[Dimension]:
    """Returns the space in the table `tune.space` of a TOML file; raises SettingsError with every mistake in one message."""
    try:
        tune = tomllib.loads(file.read_text("utf-8")).get("tune")
    except (OSError, ValueError) as error:
        raise SettingsError(f"--space {file}: cannot be read ({error})") from None
    table = tune.get("space") if isinstance(tune, dict) else None
    if not table or not isinstance(table, dict):
        raise SettingsError(f"--space {file}: has no table [tune.space]; write one, with lines such as {EXAMPLE}")
    known, mistakes, found = dotted(asdict(config)), [], []
    for name, values in _leaves(table):
        if name not in known:
            mistakes.append(f"{name}: there is no such setting{did_you_mean(name, known)}")
        elif name in FIXED or name.startswith("data."):
            mistakes.append(f"{name}: cannot be searched over; set it for all trials, as KEY=VALUE")
        else:
            try:
                dimension = _dimension(name, values, is_float=isinstance(known[name], float))
                dimension.distribution()
                for value in dimension.choices or (dimension.low, dimension.high):
                    load_config(recipe, [*overrides, f"{name}={_text(value)}"])
                found.append(dimension)
            except (SettingsError, ValueError) as error:  # ValueError: Optuna's
                mistakes.append(f"{name}: {str(error).splitlines()[-1].strip()}")
    if mistakes:
        lines = "\n  ".join(mistakes)
        raise SettingsError(
            f"--space {file}: {len(mistakes)} mistake{'s' * (len(mistakes) > 1)}; nothing was started:\n  {lines}"
        )
    return found


def _dimension(name: str, values: Any, *, is_float: bool) -> Dimension:
    if isinstance(values, list) and len(values) > 1 and all(isinstance(value, bool | int | float | str) for value in values):
        return Dimension(name, tuple(values))
    numbers = [values.get(key) for key in ("low", "high", "step")] if isinstance(values, dict) else [None]
    kinds = int | float if is_float else int
    is_range = all(isinstance(number, kinds) and not isinstance(number, bool) for number in numbers if number is not None)
    if None in numbers[:2] or not is_range or set(values) - RANGE_KEYS:
        whole = "" if is_float else " of whole numbers"
        raise SettingsError(f"must be a list of two or more values, or a range{whole} with low and high, such as {EXAMPLE}")
    low, high = (float(values[key]) if is_float else values[key] for key in ("low", "high"))
    log, step = values.get("log", False), values.get("step")
    is_step = step is None or (step > 0 and not log)
    if low >= high or not isinstance(log, bool) or (log and low <= 0) or not is_step:
        raise SettingsError(f"low must be below high, and above 0 with log; step above 0, and not with log; such as {EXAMPLE}")
    return Dimension(name, (), low, high, log, step)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and "low" not in value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def propose(space: Sequence[Dimension], history: Sequence[tuple[Mapping[str, Any], float]], count: int) -> list[dict[str, Any]]:
    """Returns the settings of `count` trials that Optuna's TPE proposes after trials with their scores: a function of these.

    Bergstra et al. 2011, "Algorithms for hyper-parameter optimization". Trials with values outside of the space are left out.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {dimension.name: dimension.distribution() for dimension in space}
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=len(history)))
    for settings, score in history:
        with suppress(ValueError):  # of a recipe whose values are outside of the space
            study.add_trial(optuna.create_trial(params=dict(settings), distributions=distributions, value=score))
    return [dict(study.ask(distributions).params) for _ in range(count)]
