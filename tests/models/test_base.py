"""What both networks share: the head can be trained alone."""

import pytest
import torch

from sprintnet.evaluation.predict import predict
from sprintnet.evaluation.task import SINGLE_LABEL
from sprintnet.models.base import Network
from sprintnet.models.factory import build_model
from sprintnet.models.settings import ModelSettings
from sprintnet.runtime import Runtime
from sprintnet.training.optim import build_optimizer, set_learning_rates
from sprintnet.training.settings import MuonSettings, OptimSettings
from sprintnet.training.step import Step

CPU = Runtime(torch.device("cpu"), "fp32", 1)
NETWORKS = ("davidnet", "sprintnet")


def network(name: str, dropout: float = 0.0) -> Network:
    torch.manual_seed(0)
    return build_model(ModelSettings(name, 4, dropout), 5, (16, 16, 3))  # type: ignore[arg-type]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 5


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("muon", [0.0, 0.2])
def test_what_is_frozen_does_not_move_and_the_head_does(name: str, muon: float) -> None:
    model = network(name)
    model.freeze()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    step = Step(model, build_optimizer(model, OptimSettings(max_lr=1), MuonSettings(max_lr=muon)), CPU, 0.2, 0.0, SINGLE_LABEL)
    model.train()
    for _ in range(3):
        set_learning_rates(step.optimizer, 1, 1)
        step(*batch())
        predict(model, [batch()], CPU)  # as after each epoch: evaluates, then puts the mode back
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if key.startswith("linear.")}


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_features_are_those_of_evaluation_while_the_head_trains(name: str) -> None:
    model = network(name, dropout=0.5)
    images, _ = batch()
    training = model.train().features(images)
    expected = model.eval().features(images)
    assert not torch.allclose(training, expected)
    model.freeze()
    assert model.train().training
    torch.testing.assert_close(model.features(images), expected)
    assert not torch.equal(model(images), model(images))  # dropout is part of the head
    assert model.eval()(images).equal(model(images))
