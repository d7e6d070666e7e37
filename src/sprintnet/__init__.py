"""SprintNet: train, explain, prove and ship small-image classifiers.

The public names below are imported on first use: `import sprintnet` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # isort: off
    from sprintnet.api import Model as Model, load as load, train as train
    from sprintnet.classifier import SprintNetClassifier as SprintNetClassifier
    from sprintnet.datasets import Dataset as Dataset, from_arrays as from_arrays, load_data as load_data
    from sprintnet.deploy.predictor import Predictor as Predictor
    from sprintnet.errors import AccessError as AccessError, DataError as DataError, DivergedError as DivergedError
    from sprintnet.errors import Interrupted as Interrupted, ParityError as ParityError
    from sprintnet.errors import SettingsError as SettingsError, SprintNetError as SprintNetError
    from sprintnet.studies import check as check, compare as compare, ensemble as ensemble, lr_find as lr_find, study as study

__version__ = "0.1.0"

_NAMES = {
    "api": "Model load train",
    "classifier": "SprintNetClassifier",
    "datasets": "Dataset from_arrays load_data",
    "deploy.predictor": "Predictor",
    "errors": "AccessError DataError DivergedError Interrupted ParityError SettingsError SprintNetError",
    "studies": "check compare ensemble lr_find study",
}
_MODULE_OF = {name: f"sprintnet.{module}" for module, names in _NAMES.items() for name in names.split()}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        try:
            return getattr(import_module(_MODULE_OF[name]), name)
        except ModuleNotFoundError as error:
            from sprintnet.errors import MissingPackageError, missing_extra

            if not (needs := missing_extra(error)):
                raise
            raise MissingPackageError(f"{name} {needs}") from None
    raise AttributeError(f"module 'sprintnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
