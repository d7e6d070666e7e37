"""predict: all images in order, the network's mode restored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from small_sets import preprocessing
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Loader
from sprintnet.data.preprocessing import TTA_VIEWS
from sprintnet.evaluation.metrics import confidence as confidences
from sprintnet.evaluation.predict import predict, predict_tta
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.models.base import LinearNetwork
from sprintnet.models.novelty import Novelty
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


def test_tta_is_the_mean_over_the_views_with_the_published_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    images, labels = torch.randn(25, 3, 8, 8), torch.zeros(25)
    batches = [(images[:10], labels[:10]), (images[10:], labels[10:])]
    again = predict_tta(model, batches, FP32, predict(model, batches, FP32)[0], TTA_VIEWS["all"])
    np.testing.assert_allclose(again, tta_mean(model, images).numpy(), rtol=1e-4, atol=1e-5)


class Linear(LinearNetwork):
    """Four classes by a linear function of the pixels."""

    logit_scale = 1.0
    dropout = None

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.novelty = nn.Linear(3 * 64, 4), Novelty(4, 3 * 64)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def embed(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(1)


@pytest.mark.parametrize("confidence", [0.3, 0.5, 1.0])
def test_only_images_below_the_confidence_get_tta(confidence: float) -> None:
    torch.manual_seed(0)
    model = Linear()
    pixels = np.random.default_rng(0).integers(0, 256, (700, 8, 8, 3), np.uint8)  # more than a batch
    dataset = ImageDataset(pixels, np.arange(700) % 4, ("a", "b", "c", "d"))
    trained = TrainedModel(model, preprocessing(dataset.classes, (8, 8, 3)), FP32)
    arrays = trained.evaluate(dataset, confidence).arrays
    is_unsure = confidences(arrays["logits"]) <= confidence
    assert (is_unsure.sum() == 700) if confidence == 1 else (0 < is_unsure.sum() < 700)
    np.testing.assert_array_equal(arrays["tta_logits"][~is_unsure], arrays["logits"][~is_unsure])
    images = Loader(dataset, trained.preprocessing.normalisation, 700, FP32.device).first(700)
    np.testing.assert_allclose(arrays["tta_logits"][is_unsure], tta_mean(model, images).numpy()[is_unsure], atol=1e-5)


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
    again = predict_tta(model, batches, FP32, first, views)
    np.testing.assert_allclose(again, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_tta_in_reduced_precision_returns_fp32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    images, bf16 = torch.randn(25, 3, 8, 8), Runtime(torch.device("cpu"), "bf16", 1)
    first, _ = predict(model, [(images, torch.zeros(25))], bf16)
    again = predict_tta(model, [(images, torch.zeros(25))], bf16, first, TTA_VIEWS["all"])
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, tta_mean(model, images).numpy(), atol=0.03)
