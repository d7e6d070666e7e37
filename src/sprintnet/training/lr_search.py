"""The learning-rate finder on a recipe: its data and a new network."""

import itertools
from dataclasses import asdict
from typing import Any

from sprintnet.autoconfig import DatasetFacts, resolve
from sprintnet.config import Config, resumed
from sprintnet.data.augment import resize
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits
from sprintnet.data.splits import Splits
from sprintnet.errors import SettingsError
from sprintnet.models.transfer import Pretrained, load_pretrained
from sprintnet.progress import track
from sprintnet.runs.folder import RunFolder, read_json, require_consistent
from sprintnet.runs.io import write_atomic, write_json
from sprintnet.runtime import select_runtime
from sprintnet.training.head_fit import fit_head
from sprintnet.training.lr_finder import MAX_EXTENSION, sweep
from sprintnet.training.schedule import Schedule
from sprintnet.training.setup import build_step, whiten

RECOMMENDED = "steepest"
"""The suggestion that training takes: the nearest to the peaks of the recipes (LOG.md)."""
Found = dict[str, Any]
"""seed, rates, losses, smoothed, suggestions."""


def lr_find(
    config: Config,
    folder: RunFolder,
    seeds: int = 1,
    lowest: float = 1e-7,
    highest: float = 10.0,
    rates: int = 100,
    splits: Splits | None = None,
) -> list[Found]:
    """Returns, for each seed, the loss over rising peak learning rates, a batch each, and the suggested rates.

    The learning rate is the one in the training table; the parameter groups keep their proportions. The curves are kept in the
    folder's lr_finder.json. `splits` replace the data that the settings name. Raises SettingsError where a curve suggests
    nothing or the folder holds a run of other settings, DataError.
    """
    config = resumed(folder.config, config)
    folder.path.mkdir(parents=True, exist_ok=True)
    if not folder.config.exists():
        folder.splits.unlink(missing_ok=True)  # left by a sweep that failed, perhaps with other settings
    images = (splits or load_splits(config.data, run=folder))["train"]
    pretrained = load_pretrained(config.init_from, config.model, images.image_shape[2])
    resolved, _ = resolve(config, DatasetFacts.of(images, pretrained.saved.settings if pretrained else None))
    found = _sweep_seeds(resolved, images, pretrained, folder, seeds, (lowest, highest, rates))
    write_atomic(folder.config, config.to_toml())
    return found


def find_peak_lr(config: Config, run: RunFolder, images: ImageDataset, pretrained: Pretrained | None) -> float:
    """Returns the recommended peak for resolved settings; a resumed run reads the curve in its lr_finder.json.

    Raises SettingsError where that is gone.
    """
    if not (run.lr_finder.exists() or run.checkpoint.exists()):
        _sweep_seeds(config, images, pretrained, run)
    found = read_json(run.lr_finder)
    with require_consistent(run):
        return float(found["sweeps"][0]["suggestions"][RECOMMENDED])


def _sweep_seeds(
    config: Config,
    images: ImageDataset,
    pretrained: Pretrained | None,
    folder: RunFolder,
    seeds: int = 1,
    limits: tuple[float, float, int] = (1e-7, 10.0, 100),
) -> list[Found]:
    if not config.epochs:
        raise SettingsError("epochs=0: only the last layer is fitted, at no learning rate; use epochs=3, or lr_find=false")
    lowest, highest, rates = limits
    resolution = Schedule(config.schedule, config.epochs).resolution(0)
    runtime, found = select_runtime(config.device, config.precision, config.threads, deterministic=config.deterministic), []
    for seed in range(config.seed, config.seed + seeds):
        with runtime.activated(seed):
            step, loader = build_step(config, images, runtime, pretrained)
            whiten(step.model, loader, config)
            if config.head.fit:
                fit_head(step.model, loader, images, config, runtime, folder, track)
            steps = MAX_EXTENSION * rates
            batches = track(itertools.islice(loader.endless(seed, config.augment), steps), steps, f"seed {seed}, at most")
            as_trained = ((resize(images, resolution), labels) for images, labels in batches)  # as training begins
            curve = sweep(step, as_trained, config.peak_lr, lowest, highest, rates)
        try:
            found.append({"seed": seed, **asdict(curve), "suggestions": curve.suggestions()})
        except SettingsError as error:
            if seed == config.seed + seeds - 1 and not found:
                raise
            folder.log(f"seed {seed} is left out: {error}")
    write_json(folder.lr_finder, {"sweeps": found})
    return found
