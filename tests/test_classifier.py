"""SprintNetClassifier follows scikit-learn's protocol, and its errors are ValueErrors."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

import sprintnet as sn

SETTINGS = {
    "model__width": 4, "threads": 1, "precision": "fp32", "optim__max_lr": 0.1,
    "augment__affine": 0, "augment__flip": 0, "augment__cutout": 0, "augment__crop_padding": 0,
}  # fmt: skip
SIDE = 16
SKIPPED_CHECKS = {"check_array_api_input": "scikit-learn runs it where SCIPY_ARRAY_API is set before SciPy is imported"}


class OfRows(sn.SprintNetClassifier):
    """Draws each row of features as an image of stripes: scikit-learn's checks have no images."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags

    def _images(self, X: np.ndarray) -> np.ndarray:
        stripes = 1 / (1 + np.exp(-X.astype(np.float64)))[:, np.arange(SIDE) * X.shape[1] // SIDE]
        return np.repeat(stripes[:, None, :, None], SIDE, axis=1)


def tiny(**arguments: Any) -> sn.SprintNetClassifier:
    return sn.SprintNetClassifier("davidnet", **{"epochs": 3, "batch_size": 16, "settings": SETTINGS, **arguments})


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    """60 images: dark, grey and light."""
    brightness = 40 + 80 * (np.arange(60) % 3)
    return (brightness[:, None, None] + np.random.default_rng(0).integers(0, 9, (60, SIDE, SIDE))).astype(np.uint8)


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    return np.array(["dark", "grey", "light"])[np.arange(60) % 3]


@pytest.fixture(scope="module")
def fitted(X: np.ndarray, y: np.ndarray) -> sn.SprintNetClassifier:
    return tiny(epochs=8).fit(X, y)


def test_all_checks_of_scikit_learn_pass() -> None:
    rows = OfRows("davidnet", epochs=3, batch_size=16, settings=SETTINGS)
    results = check_estimator(rows, on_skip=None)  # raises where one fails
    assert len(results) > 50
    assert {found["check_name"] for found in results if found["status"] != "passed"} == set(SKIPPED_CHECKS)


def test_the_tags_say_that_images_are_needed() -> None:
    with pytest.warns(SkipTestWarning, match="three_d_array=True"):
        check_estimator(tiny())


def test_it_learns_and_keeps_its_labels(fitted: sn.SprintNetClassifier, X: np.ndarray, y: np.ndarray) -> None:
    assert fitted.classes_.tolist() == ["dark", "grey", "light"]
    assert fitted.n_features_in_ == SIDE * SIDE
    assert fitted.score(X, y) == 1
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (60, 3)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert fitted.predict(X).tolist() == y.tolist()
    assert isinstance(fitted.model_, sn.Model)


def test_forms_of_the_same_images_are_predicted_alike(fitted: sn.SprintNetClassifier, X: np.ndarray) -> None:
    expected = fitted.predict_proba(X)
    for floats in (X / 255, (X / 255).astype(np.float32), (X / 255).tolist()):
        assert np.allclose(fitted.predict_proba(floats), expected, atol=1e-5)
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict_proba(X), expected)


def test_colour_images_and_the_run_folder(X: np.ndarray, y: np.ndarray, tmp_path: Path, capsys: Any) -> None:
    colour = np.stack([X, X, 255 - X], axis=-1)
    classifier = tiny(run_folder=tmp_path / "run", epochs=1).fit(colour, y)
    assert classifier.predict(colour[:5]).shape == (5,)
    assert classifier.model_.run == tmp_path / "run"
    assert classifier.model_.metrics["epochs"] == 1
    assert capsys.readouterr().out == ""
    assert "Epoch" in (tmp_path / "run" / "log.txt").read_text()
    with pytest.raises(ValueError, match="already holds a run"):
        classifier.fit(colour, y)


def test_it_is_cloned_and_searched(X: np.ndarray, y: np.ndarray) -> None:
    assert clone(tiny(seed=3)).get_params() == tiny(seed=3).get_params()
    search = GridSearchCV(tiny(), {"epochs": [1, 2]}, cv=2).fit(X, y)
    assert search.best_params_["epochs"] in (1, 2)
    assert search.predict(X[:2]).shape == (2,)


def test_equal_seeds_are_equal_models(X: np.ndarray, y: np.ndarray) -> None:
    first, second, other = (tiny(seed=seed, epochs=1).fit(X, y).predict_proba(X) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": lambda X: X.reshape(60, -1)}, r"X has shape \(60, 256\); must be \(N, H, W\) or \(N, H, W, C\): X.reshape"),
        ({"X": lambda X: X * 1.0}, r"images: floats from 0 to \d+; must be in 0..1"),
        ({"X": lambda X: X.astype(int)}, "images: int64 of shape"),
        ({"X": lambda X: X[:3], "y": lambda y: y[:3]}, "n_samples = 3 is too small"),
        ({"y": lambda y: np.repeat("dark", 60)}, "at least 2 classes; y has one class: dark"),
        ({"y": lambda y: y[:-1]}, "inconsistent numbers of samples"),
        ({"recipe": "sprint49"}, "recipe sprint49: "),
        ({"settings": {"optim__max_lr": -1}}, "optim__max_lr=-1: must be "),
        ({"settings": {"optim__lr": 1}}, "optim__lr=1: there is no such setting; did you mean optim__"),
        ({"settings": {"data__vall": 1}}, "data__vall=1: there is no such setting; did you mean data__val"),
        (
            {"settings": {"data__dedupe": True}},
            "data__dedupe: not for arrays, which take data__val; ",
        ),
        ({"settings": {"data__size": 8}}, "data__size: not for arrays, which take data__val; resize or convert the images"),
        ({"epochs": 0}, "epochs=0: trains nothing; use 1 or more, or head__fit=True"),
        ({"epochs": -1}, "epochs=-1: must be at least 0"),
    ],
)
def test_mistakes_are_value_errors(X: np.ndarray, y: np.ndarray, change: dict[str, Any], message: str) -> None:
    images, labels = change.pop("X", lambda X: X)(X), change.pop("y", lambda y: y)(y)
    with pytest.raises(ValueError, match=message):
        tiny().set_params(**change).fit(images, labels)


def test_images_of_another_shape_are_a_value_error(fitted: sn.SprintNetClassifier, X: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"X has 64 features, but .* is expecting 256 features as input: images of shape"):
        fitted.predict(X[:, :8, :8])
