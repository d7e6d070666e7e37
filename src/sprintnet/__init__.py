"""SprintNet: train, explain, prove and ship small-image classifiers.

The public names below are loaded on first use, so that `import sprintnet` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sprintnet.config import Config, load_config, recipes
    from sprintnet.pipeline import TrainedModel, load_run, load_splits, train
    from sprintnet.run import RunFolder

__version__ = "0.1.0"

_HOMES = {
    "Config": "sprintnet.config",
    "RunFolder": "sprintnet.run",
    "TrainedModel": "sprintnet.pipeline",
    "load_config": "sprintnet.config",
    "load_run": "sprintnet.pipeline",
    "load_splits": "sprintnet.pipeline",
    "recipes": "sprintnet.config",
    "train": "sprintnet.pipeline",
}
__all__ = ["Config", "RunFolder", "TrainedModel", "load_config", "load_run", "load_splits", "recipes", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sprintnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
