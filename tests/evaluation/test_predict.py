"""predict: all images in order, the network left as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from sprintnet.evaluation.predict import predict
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


def test_six_views_are_weighted_as_published() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    images = torch.randn(5, 3, 8, 8)
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
    views = [images, padded[:, :, 0:8, 0:8], padded[:, :, 2:10, 2:10]]
    with torch.no_grad():
        answers = [(model(view) + model(view.flip(-1))) / 2 for view in views]
    expected = 0.5 * answers[0] + 0.25 * answers[1] + 0.25 * answers[2]
    logits, _ = predict(model, [(images, torch.zeros(5))], FP32, tta=True)
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)
