"""SprintNetClassifier: scikit-learn's protocol for image classification."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, check_X_y

from sprintnet.api import Model, configure
from sprintnet.data.custom.arrays import from_arrays
from sprintnet.data.custom.split import DEFAULT_VAL_FRACTION
from sprintnet.data.splits import stratified_sample
from sprintnet.datasets import Dataset, array_settings, python_names
from sprintnet.errors import SettingsError, SprintNetError
from sprintnet.runs.folder import RunFolder
from sprintnet.training.train import train

Array = npt.NDArray[Any]


class SprintNetClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Trains a recipe on images (N, H, W) or (N, H, W, C), uint8 or floats in 0..1, with one class per image.

    A tenth of the training images, or the fraction `settings={"data__val": ...}`, is held out to calibrate probabilities.
    `settings` are further settings of the recipe, such as {"optim__max_lr": 0.4}. The run is kept in `run_folder`, if given.
    After `fit`, `model_` is the Model. Errors are ValueErrors.
    """

    def __init__(
        self,
        recipe: str | Path = "sprint94",
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        run_folder: str | Path | None = None,
    ):
        self.recipe = recipe
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed
        self.settings = settings
        self.run_folder = run_folder

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def fit(self, X: Any, y: Any) -> "SprintNetClassifier":
        """Trains on images X and labels y (N,)."""
        X, y = check_X_y(X, y, dtype=None, allow_nd=True, estimator=self)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} needs images of at least 2 classes; y has one class: {self.classes_[0]}")
        self.n_features_in_ = int(np.prod(X.shape[1:]))
        self._shape = X.shape[1:]
        given = {"epochs": self.epochs, "batch_size": self.batch_size, "seed": self.seed}
        settings = {key: value for key, value in given.items() if value is not None} | dict(self.settings or {})
        of_data = {key.removeprefix("data__"): settings.pop(key) for key in list(settings) if key.startswith("data__")}
        with ExitStack() as stack:
            folder = self.run_folder or stack.enter_context(TemporaryDirectory(prefix="sprintnet-"))
            try:
                with python_names():
                    chosen = array_settings(of_data, "data.val")
                    data = from_arrays(self._images(X), labels, list(map(str, self.classes_)))
                    fraction = DEFAULT_VAL_FRACTION if chosen.val == "auto" else chosen.val
                    if not fraction:
                        raise SettingsError("data.val=0: no image would be held out for calibration; use a fraction")
                    held_out = stratified_sample(data.labels, fraction, min_per_class=1)
                    if not held_out.any():
                        raise ValueError(f"n_samples = {len(X)} is too small: a class needs two images, one to be held out")
                    parts = {"train": data.take(np.flatnonzero(~held_out)), "val": data.take(np.flatnonzero(held_out))}
                    config, splits = configure(self.recipe, Dataset(chosen, parts), settings)
                    run = RunFolder(Path(folder), is_quiet=True)
                    self.model_ = Model(train(config, run, splits=splits).model, run if self.run_folder else None, splits)
            except SprintNetError as error:
                raise ValueError(str(error)) from error
        return self

    def _images(self, X: Array) -> Array:
        if X.ndim not in (3, 4):
            raise ValueError(f"X has shape {X.shape}; must be (N, H, W) or (N, H, W, C): X.reshape(len(X), height, width)")
        return X if X.ndim == 4 else X[..., None]

    def predict(self, X: Any) -> Array:
        """Returns the class of each image (N,)."""
        predicted = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[predicted])

    def predict_proba(self, X: Any) -> Array:
        """Returns probabilities (N, K), in the order of `classes_`."""
        check_is_fitted(self)
        X = check_array(X, dtype=None, allow_nd=True, estimator=self)
        if X.shape[1:] != self._shape:
            raise ValueError(
                f"X has {np.prod(X.shape[1:])} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                f"as input: images of shape {self._shape}, not {X.shape[1:]}"
            )
        return self.model_.predict_proba(self._images(X))
