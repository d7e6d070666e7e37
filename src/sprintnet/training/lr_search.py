"""Which peak learning rate suits a recipe: the finder on its data and a fresh network, for show or for training."""

import itertools
from dataclasses import asdict
from typing import Any

from sprintnet import runtime
from sprintnet.config import Config, differences, load_config
from sprintnet.data.augment import resize
from sprintnet.data.splits import Splits
from sprintnet.errors import SettingsError
from sprintnet.progress import track
from sprintnet.runs.folder import RunFolder, read_json, require_consistent
from sprintnet.runs.io import write_atomic, write_json
from sprintnet.training.lr_finder import sweep
from sprintnet.training.schedule import resolution_at
from sprintnet.training.setup import build_step, load_splits, resolve_auto, whiten

RECOMMENDED = "steepest"
"""The suggestion that training takes; sprint94's valley lies far below its peak (LOG.md)."""


def lr_find(
    config: Config,
    folder: RunFolder,
    seeds: int = 1,
    lowest: float = 1e-7,
    highest: float = 10.0,
    rates: int = 100,
    splits: Splits | None = None,
) -> list[dict[str, Any]]:
    """Returns, for each seed, the loss over rising peak rates of the fresh network, a batch a rate, and the rates suggested.

    The rate is the one that the training table shows; with several optimizers all keep their proportion to it. The curves are
    kept in the folder's lr_finder.json. `splits` take the place of the data that the settings name. Raises SettingsError where
    a curve suggests nothing or the folder holds a run of other settings, DataError.
    """
    if folder.config.exists() and (changed := differences(load_config(folder.config), config)):
        raise SettingsError(f"{folder.path}: holds a run of other settings ({', '.join(changed)}); choose another folder")
    folder.path.mkdir(parents=True, exist_ok=True)
    if not folder.config.exists():
        folder.splits.unlink(missing_ok=True)  # of a sweep that came to nothing, perhaps with other settings
    images, given = (splits or load_splits(config, kept=folder.splits))["train"], config
    config, _ = resolve_auto(given, images.classes, images.image_shape, len(images))
    resolution = resolution_at(config.schedule, config.epochs, 0)
    found = []
    for seed in range(config.seed, config.seed + seeds):
        context = runtime.start(config.device, config.precision, config.threads, seed)
        step, loader = build_step(config, images, context)
        whiten(step.model, loader, config)
        batches = track(itertools.islice(loader.endless(seed, config.augment), rates), rates, f"seed {seed}")
        as_trained = ((resize(images, resolution), labels) for images, labels in batches)  # as training begins
        curve = sweep(step, as_trained, config.peak_lr, lowest, highest, rates)
        found.append({"seed": seed, **asdict(curve), "suggestions": curve.suggestions()})
    write_atomic(folder.config, given.to_toml())
    write_json(folder.lr_finder, {"sweeps": found})
    return found


def find_peak_lr(config: Config, run: RunFolder, splits: Splits | None = None) -> float | None:
    """Returns the peak that the finder suggests, where the settings ask for it, and else None.

    The curve is kept in the run's lr_finder.json; a resumed run reads it there. Raises SettingsError where it is gone.
    """
    if not config.lr_find:
        return None
    if not (run.lr_finder.exists() or run.checkpoint.exists()):
        lr_find(config, run, splits=splits)
    found = read_json(run.lr_finder)
    with require_consistent(run):
        rate = float(found["sweeps"][0]["suggestions"][RECOMMENDED])
    run.log(f"learning-rate finder: a peak of {rate:.3g} ({RECOMMENDED}); the recipe's is {config.peak_lr:g}")
    return rate
