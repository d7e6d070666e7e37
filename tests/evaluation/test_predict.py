"""predict: all images in order, the network's mode restored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from small_sets import preprocessing
from sprintnet.data.preprocessing import TTA_VIEWS
from sprintnet.evaluation.metrics import confidence as confidences
from sprintnet.evaluation.predict import predict, predict_tta
from sprintnet.runtime import Runtime

FP32 = Runtime(torch.device("cpu"), "fp32", 1)


def test_logits_are_the_networks_in_eval_mode_and_in_order() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 4)).train()
    images = torch.randn(7, 3, 2, 2)
    statistics = [buffer.clone() for buffer in model.buffers()]
    logits, labels = predict(model, [(images[:4], torch.arange(4)), (images[4:], torch.arange(4, 7))], FP32)
    assert model.training
    assert all(torch.equal(before, after) for before, after in zip(statistics, model.buffers(), strict=True))
    np.testing.assert_allclose(logits, model.eval()(images).detach().numpy(), rtol=1e-6)
    assert (logits.dtype, labels.tolist()) == (np.float32, list(range(7)))


def test_a_failure_leaves_the_mode_too() -> None:
    model = nn.Linear(3, 2).train()
    with pytest.raises(RuntimeError):
        predict(model, [(torch.zeros(1, 5), torch.zeros(1))], FP32)
    assert model.training


def tta_mean(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
    views = [images, padded[:, :, 0:8, 0:8], padded[:, :, 2:10, 2:10]]
    with torch.no_grad():
        answers = [(model(view) + model(view.flip(-1))) / 2 for view in views]
    return 0.5 * answers[0] + 0.25 * answers[1] + 0.25 * answers[2]


@pytest.mark.parametrize("confidence", [0.0, 0.3, 0.5, 1.0])
def test_images_below_the_confidence_get_the_mean_over_the_views_with_the_published_weights(confidence: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    images, labels = torch.randn(25, 3, 8, 8), torch.zeros(25)
    batches = [(images[:10], labels[:10]), (images[10:], labels[10:])]
    first, _ = predict(model, batches, FP32)
    again = predict_tta(model, batches, FP32, first, confidences(first) <= confidence, TTA_VIEWS["all"])
    is_unsure = (torch.from_numpy(first).softmax(1).amax(1) <= confidence).numpy()
    assert {0.0: 0, 1.0: 25}.get(confidence, is_unsure.sum()) == is_unsure.sum()
    assert confidence in (0, 1) or 0 < is_unsure.sum() < 25
    np.testing.assert_array_equal(again[~is_unsure], first[~is_unsure])
    np.testing.assert_allclose(again[is_unsure], tta_mean(model, images).numpy()[is_unsure], rtol=1e-4, atol=1e-5)


def test_without_flips_there_are_three_views() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    images = torch.randn(25, 3, 8, 8)
    batches = [(images, torch.zeros(25))]
    first, _ = predict(model, batches, FP32)
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
    with torch.no_grad():
        expected = 0.5 * model(images) + 0.25 * model(padded[:, :, 0:8, 0:8]) + 0.25 * model(padded[:, :, 2:10, 2:10])
    views = replace(preprocessing(("a", "b", "c", "d")), flip_tta=False).views("all")
    again = predict_tta(model, batches, FP32, first, np.ones(25, bool), views)
    np.testing.assert_allclose(again, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_tta_in_reduced_precision_returns_fp32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    images, bf16 = torch.randn(25, 3, 8, 8), Runtime(torch.device("cpu"), "bf16", 1)
    first, _ = predict(model, [(images, torch.zeros(25))], bf16)
    again = predict_tta(model, [(images, torch.zeros(25))], bf16, first, np.ones(25, bool), TTA_VIEWS["all"])
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, tta_mean(model, images).numpy(), atol=0.03)
