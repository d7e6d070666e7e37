"""SprintNet: train, explain, prove and ship small-image classifiers.

The public names below are loaded on first use, so that `import sprintnet` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sprintnet.config import Config, load_config, recipes
    from sprintnet.data.load import load_splits
    from sprintnet.deploy.export.export import export
    from sprintnet.deploy.predictor import Predictor
    from sprintnet.evaluation.explain import explain_files, explain_wrong
    from sprintnet.evaluation.trained_model import TrainedModel, load, load_run
    from sprintnet.models.factory import build_model
    from sprintnet.models.summary import layer_table
    from sprintnet.reporting.figures.run_figures import save_figure
    from sprintnet.reporting.html.report import write_report
    from sprintnet.runs.folder import RunFolder
    from sprintnet.training.lr_search import lr_find
    from sprintnet.training.train import train

__version__ = "0.1.0"

_HOMES = {
    "Config": "sprintnet.config",
    "Predictor": "sprintnet.deploy.predictor",
    "RunFolder": "sprintnet.runs.folder",
    "TrainedModel": "sprintnet.evaluation.trained_model",
    "build_model": "sprintnet.models.factory",
    "save_figure": "sprintnet.reporting.figures.run_figures",
    "explain_files": "sprintnet.evaluation.explain",
    "explain_wrong": "sprintnet.evaluation.explain",
    "export": "sprintnet.deploy.export.export",
    "lr_find": "sprintnet.training.lr_search",
    "layer_table": "sprintnet.models.summary",
    "load": "sprintnet.evaluation.trained_model",
    "load_config": "sprintnet.config",
    "load_run": "sprintnet.evaluation.trained_model",
    "load_splits": "sprintnet.training.setup",
    "recipes": "sprintnet.config",
    "train": "sprintnet.training.train",
    "write_report": "sprintnet.reporting.html.report",
}
__all__ = [
    "Config",
    "Predictor",
    "RunFolder",
    "TrainedModel",
    "build_model",
    "explain_files",
    "explain_wrong",
    "export",
    "layer_table",
    "load",
    "load_config",
    "load_run",
    "load_splits",
    "lr_find",
    "recipes",
    "save_figure",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sprintnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
