"""Preprocessing: label smoothing undone exactly, temperatures, the views of test-time augmentation, what files hold."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, softmax

from small_sets import preprocessing
from sprintnet.data.preprocessing import SMOOTHING_FLOOR, TTA_VIEWS, Floats, Preprocessing
from sprintnet.errors import ArgumentError

CLASSES = ("a", "b", "c", "d")
LOGITS = arrays(np.float32, (5, 4), elements=st.floats(-20, 20, width=32))


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5])
def test_smoothed_probabilities_give_back_the_probabilities_that_were_smoothed(alpha: float) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 100).clip(0.01)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    smoothed = (1 - alpha) * probabilities + alpha / 4  # what the loss with label smoothing trains towards
    found = replace(preprocessing(CLASSES), label_smoothing=alpha).probabilities(np.log(smoothed) + 7)
    np.testing.assert_allclose(found, probabilities, rtol=1e-9)


@given(logits=LOGITS, alpha=st.floats(0, 0.9), temperature=st.floats(0.1, 10))
def test_calibration_never_changes_the_prediction(logits: Floats, alpha: float, temperature: float) -> None:
    model = replace(preprocessing(CLASSES), label_smoothing=alpha, temperature=temperature)
    found, index = model.probabilities(logits.astype(np.float64)), np.arange(5)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[index, logits.argmax(axis=1)] >= found.max(axis=1) - 1e-12).all()


def test_classes_below_the_smoothed_minimum_keep_their_order_between_the_floor_and_half_of_it() -> None:
    logits = np.array([[30.0, 4, 2, 9]])
    found = np.exp(replace(preprocessing(CLASSES), label_smoothing=0.2).unsmoothed(logits))[0]
    floor = SMOOTHING_FLOOR / 4
    assert found[0] == pytest.approx((1 - 0.05) / 0.8)
    assert ((floor / 2 <= found[1:]) & (found[1:] <= floor)).all()
    assert found.argsort().tolist() == logits[0].argsort().tolist()


@given(logits=arrays(np.float64, (20, 10), elements=st.floats(-5, 5).map(lambda value: round(value, 3))))
def test_undoing_label_smoothing_keeps_the_order_of_all_classes(logits: Floats) -> None:
    found = replace(preprocessing(tuple("abcdefghij")), label_smoothing=0.2).unsmoothed(logits)
    np.testing.assert_array_equal(np.argsort(found, kind="stable"), np.argsort(logits, kind="stable"))


@given(logits=LOGITS, temperature=st.floats(0.1, 10))
def test_without_label_smoothing_the_temperature_divides_the_logits(logits: Floats, temperature: float) -> None:
    model = replace(preprocessing(CLASSES), temperature=temperature)
    np.testing.assert_allclose(model.probabilities(logits), softmax(logits / temperature, axis=1), rtol=1e-4, atol=1e-30)
    several = replace(model, task="multi-label")
    np.testing.assert_allclose(several.probabilities(logits), expit(logits / temperature), rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize("temperature", [None, 0.7])
def test_what_files_hold_is_read_back(temperature: float | None) -> None:
    of_tta = {} if temperature is None else {"flip": 0.6, "all": 0.5}
    model = replace(preprocessing(CLASSES), label_smoothing=0.2, temperature=temperature, tta_temperatures=of_tta)
    assert Preprocessing.from_metadata(json.loads(json.dumps(model.to_metadata()))) == model
    assert model.with_tta(None) is model
    assert model.with_tta("all").temperature == of_tta.get("all")
    assert Preprocessing.from_metadata(model.with_tta("all").to_metadata()) == model.with_tta("all")


@pytest.mark.parametrize(
    "damage", [{"tta_temperatures": []}, {"temperature": 0}, {"tta_temperatures": {"all": -1}}, {"label_smoothing": 1}]
)
def test_impossible_metadata_are_refused(damage: dict[str, object]) -> None:
    metadata = {**preprocessing(CLASSES).to_metadata(), **damage}
    if damage == {"tta_temperatures": []}:
        assert Preprocessing.from_metadata(metadata).tta_temperatures == {}
    else:
        with pytest.raises(ValueError, match="are not possible"):
            Preprocessing.from_metadata(metadata)


def test_the_weights_of_views_add_up_to_one_and_the_image_itself_is_first() -> None:
    for flip_tta in (True, False):
        model = replace(preprocessing(CLASSES), flip_tta=flip_tta)
        for tta in model.tta_choices:
            views = model.views(tta)
            assert sum(view.weight for view in views) == 1
            assert views[0][:2] == (0, False)
            assert flip_tta == any(view.is_mirrored for view in views)
    assert len(TTA_VIEWS["all"]) == 6
    with pytest.raises(ArgumentError, match="must be all: the network was trained without mirrored images"):
        replace(preprocessing(CLASSES), flip_tta=False).with_tta("flip")
    with pytest.raises(ArgumentError, match="must be flip or all"):
        preprocessing(CLASSES).with_tta("some")
