"""SprintNet: train, explain, prove and ship small-image classifiers.

The public names below are imported on first use: `import sprintnet` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sprintnet.api import Model, load, train
    from sprintnet.classifier import SprintNetClassifier
    from sprintnet.datasets import Dataset, from_arrays, load_data
    from sprintnet.deploy.predictor import Predictor
    from sprintnet.errors import (
        AccessError,
        DataError,
        DivergedError,
        Interrupted,
        ParityError,
        SettingsError,
        SprintNetError,
    )
    from sprintnet.studies import check, compare, lr_find, study

__version__ = "0.1.0"

_MODULES = {
    "api": ("Model", "load", "train"),
    "classifier": ("SprintNetClassifier",),
    "datasets": ("Dataset", "from_arrays", "load_data"),
    "deploy.predictor": ("Predictor",),
    "errors": (
        "AccessError",
        "DataError",
        "DivergedError",
        "Interrupted",
        "ParityError",
        "SettingsError",
        "SprintNetError",
    ),
    "studies": ("check", "compare", "lr_find", "study"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "AccessError",
    "DataError",
    "Dataset",
    "DivergedError",
    "Interrupted",
    "Model",
    "ParityError",
    "Predictor",
    "SettingsError",
    "SprintNetClassifier",
    "SprintNetError",
    "check",
    "compare",
    "from_arrays",
    "load",
    "load_data",
    "lr_find",
    "study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"sprintnet.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'sprintnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
