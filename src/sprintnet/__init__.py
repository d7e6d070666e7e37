"""SprintNet: train, explain, prove and ship small-image classifiers.

The public names below are loaded on first use, so that `import sprintnet` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sprintnet.config import Config, load_config, recipes
    from sprintnet.deploy.export import export
    from sprintnet.deploy.predictor import Predictor
    from sprintnet.explanation import explain_files, explain_wrong
    from sprintnet.lr_search import find_learning_rates
    from sprintnet.models.factory import build_model
    from sprintnet.models.summary import layer_table
    from sprintnet.pipeline import train
    from sprintnet.preparation import load_splits
    from sprintnet.reporting.draw import draw_one
    from sprintnet.reporting.report import write_report
    from sprintnet.runs.folder import RunFolder
    from sprintnet.trained import TrainedModel, load, load_run

__version__ = "0.1.0"

_HOMES = {
    "Config": "sprintnet.config",
    "Predictor": "sprintnet.deploy.predictor",
    "RunFolder": "sprintnet.runs.folder",
    "TrainedModel": "sprintnet.trained",
    "build_model": "sprintnet.models.factory",
    "draw_one": "sprintnet.reporting.draw",
    "explain_files": "sprintnet.explanation",
    "explain_wrong": "sprintnet.explanation",
    "export": "sprintnet.deploy.export",
    "find_learning_rates": "sprintnet.lr_search",
    "layer_table": "sprintnet.models.summary",
    "load": "sprintnet.trained",
    "load_config": "sprintnet.config",
    "load_run": "sprintnet.trained",
    "load_splits": "sprintnet.preparation",
    "recipes": "sprintnet.config",
    "train": "sprintnet.pipeline",
    "write_report": "sprintnet.reporting.report",
}
__all__ = [
    "Config",
    "Predictor",
    "RunFolder",
    "TrainedModel",
    "build_model",
    "draw_one",
    "explain_files",
    "explain_wrong",
    "export",
    "find_learning_rates",
    "layer_table",
    "load",
    "load_config",
    "load_run",
    "load_splits",
    "recipes",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sprintnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
