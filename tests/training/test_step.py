"""The step against its formulas; an fp16 overflow leaves everything as it was."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sprintnet.config import load_config
from sprintnet.evaluation.task import MULTI_LABEL, SINGLE_LABEL, Task
from sprintnet.runtime import Runtime
from sprintnet.training.optim import Optimizer, build_optimizer, set_learning_rates
from sprintnet.training.settings import MuonSettings, OptimSettings, ScalerSettings
from sprintnet.training.step import Step


def runtime(precision: str) -> Runtime:
    return Runtime(torch.device("cpu"), precision, 1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def make_step(
    precision: str = "fp32",
    model: nn.Module | None = None,
    label_smoothing: float = 0.0,
    l1: float = 0.0,
    class_weights: torch.Tensor | None = None,
    task: Task = SINGLE_LABEL,
) -> Step:
    model = model or network()
    optimizer = build_optimizer(model, OptimSettings(max_lr=0.1), MuonSettings())
    return Step(model, optimizer, runtime(precision), label_smoothing, l1, task, class_weights)


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
MARKS = torch.tensor([[0, 1, 0, 1, 0], [0] * 5, [1] * 5, [0, 0, 1, 0, 0], [1, 0, 0, 0, 1], [0, 1, 1, 0, 1]], dtype=torch.uint8)


def test_nesterov_momentum_and_weight_decay_by_their_formulas() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -1.0]))
    model = nn.Module()
    model.weight = weight
    optimizer = build_optimizer(model, OptimSettings(max_lr=9, momentum=0.9, weight_decay=0.01), MuonSettings())
    expected, velocity = weight.detach().clone(), torch.zeros(2)
    for lr, gradient in ((0.1, [1.0, 2.0]), (0.2, [-1.0, 0.5]), (0.05, [0.3, 0.3])):
        set_learning_rates(optimizer, lr / 9, 0)
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        total = torch.tensor(gradient) + 0.01 * expected
        velocity = 0.9 * velocity + total
        expected = expected - lr * (total + 0.9 * velocity)
        torch.testing.assert_close(weight.detach(), expected)


def test_without_momentum_it_is_plain_descent() -> None:
    model = nn.Linear(1, 1)
    optimizer = build_optimizer(model, OptimSettings(momentum=0, nesterov=True, weight_decay=0), MuonSettings())
    assert not optimizer.param_groups[0]["settings"]["nesterov"]
    weight = model.weight.detach().clone()
    set_learning_rates(optimizer, 1, 0)
    model.weight.grad = torch.ones(1, 1)
    for _ in range(2):
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), weight - 2 * optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_the_loss_is_the_articles_label_smoothing(alpha: float) -> None:
    step = make_step(label_smoothing=alpha)
    log_p = F.log_softmax(step.model(IMAGES), dim=1)
    targets = (1 - alpha) * F.one_hot(LABELS, 5) + alpha / 5
    expected = -(targets * log_p).sum(dim=1).mean()
    step.model.load_state_dict(network().state_dict())
    step(IMAGES, LABELS)
    assert step.read().loss / 6 == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_an_image_counts_by_the_weight_of_its_class(alpha: float) -> None:
    weights = torch.tensor([0.2, 3.0, 1.0, 0.5, 0.3])
    step = make_step(label_smoothing=alpha, class_weights=weights)
    loss, logits = step.forward(IMAGES, LABELS)
    targets = (1 - alpha) * F.one_hot(LABELS, 5) + alpha / 5
    expected = -(weights[LABELS, None] * targets * F.log_softmax(logits, dim=1)).sum() / 6
    torch.testing.assert_close(loss, expected)
    if not alpha:  # with smoothing, PyTorch's weights go to the target's classes instead of the image's
        torch.testing.assert_close(loss, F.cross_entropy(logits, LABELS, weight=weights, reduction="sum") / 6)
    equal, _ = make_step(label_smoothing=alpha, class_weights=torch.ones(5)).forward(IMAGES, LABELS)
    torch.testing.assert_close(equal, make_step(label_smoothing=alpha).forward(IMAGES, LABELS)[0])


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_the_loss_of_labels_is_pytorchs_summed_over_them_with_alpha_shared_by_both_sides(alpha: float) -> None:
    step = make_step(label_smoothing=alpha, task=MULTI_LABEL)
    probabilities = step.model(IMAGES).sigmoid()
    targets = MARKS * (1 - alpha / 2) + (1 - MARKS) * (alpha / 2)  # half of alpha for the side that is not so
    expected = F.binary_cross_entropy(probabilities, targets, reduction="sum") / 6
    step.model.load_state_dict(network().state_dict())
    step(IMAGES, MARKS)
    assert step.read().loss / 6 == pytest.approx(expected.item(), rel=1e-6)


def test_an_image_is_right_when_all_its_labels_are() -> None:
    step = make_step(task=MULTI_LABEL)
    for _ in range(100):
        step(IMAGES, MARKS)
    step.reset()
    step(IMAGES, MARKS)
    assert step.read().correct == 6
    step.reset()
    spoiled = MARKS.clone()
    spoiled[0, 2] = 1 - spoiled[0, 2]  # one label of thirty
    step(IMAGES, spoiled)
    assert step.read().correct == 5


def test_l1_adds_the_sum_of_magnitudes() -> None:
    plain, penalised = make_step(), make_step(l1=1e-3)
    norm = sum(parameter.abs().sum().item() for parameter in plain.model.parameters())
    plain(IMAGES, LABELS)
    penalised(IMAGES, LABELS)
    assert (penalised.read().loss - plain.read().loss) / 6 == pytest.approx(1e-3 * norm, rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_totals_add_up_and_training_fits(precision: str) -> None:
    step = make_step(precision)
    for _ in range(3):
        step(IMAGES, LABELS)
    first = step.read()
    assert (first.images, first.skipped) == (18, 0)
    step.reset()
    for _ in range(60):
        step(IMAGES, LABELS)
    last = step.read()
    assert last.loss / last.images < first.loss / first.images
    assert last.correct > 0.9 * last.images
    assert all(parameter.dtype == torch.float32 for parameter in step.model.parameters())


def test_a_first_step_that_overflows_leaves_no_trace() -> None:
    step = make_step("fp16")
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**60})
    step(IMAGES, LABELS)
    assert step.read().skipped == 1
    assert not any(buffer.any() for buffer in step.optimizer.momentum_buffers.values())
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**10})
    step(IMAGES, LABELS)
    undisturbed = make_step("fp16")
    undisturbed.scaler.load_state_dict({**undisturbed.scaler.state_dict(), "scale": 2.0**10})
    undisturbed(IMAGES, LABELS)
    assert all(torch.equal(a, b) for a, b in zip(step.model.parameters(), undisturbed.model.parameters(), strict=True))


def test_soundness_sees_lost_weights_lost_statistics_and_a_collapsed_scale() -> None:
    assert make_step().read().is_sound
    for name in ("0.weight", "1.running_var"):
        step = make_step()
        step.model.state_dict()[name].flatten()[0] = float("nan")
        assert not step.read().is_sound
    step = make_step("fp16")
    assert step.read().is_sound
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 0.5})
    assert not step.read().is_sound


def test_the_scale_follows_its_settings_as_pytorchs_scaler_does() -> None:
    settings = ScalerSettings(init_scale=64, growth_factor=4, backoff_factor=0.25, growth_interval=2)
    model = network()
    optimizer = build_optimizer(model, OptimSettings(max_lr=0.1), MuonSettings())
    step = Step(model, optimizer, runtime("fp16"), 0.0, 0.0, SINGLE_LABEL, scaler=settings)
    scales = [step.scaler.get_scale()]
    for overflows in (False, False, False, True, False):
        step(IMAGES * (torch.inf if overflows else 1), LABELS)
        scales.append(step.scaler.get_scale())
    assert scales == [64, 64, 256, 256, 64, 64]
    assert load_config("davidnet", ["scaler.growth_interval=2"]).scaler.growth_interval == 2


@pytest.mark.parametrize("overflow", ["gradients", "activations"])
@pytest.mark.parametrize("skips", [True, False])  # False: as on mps, the scaler skips the optimizer's step
def test_an_overflow_in_fp16_is_skipped_whole_and_counted(skips: bool, overflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Optimizer, "_step_supports_amp_scaling", skips)
    step = make_step("fp16")
    step(IMAGES, LABELS)
    totals = step.read()
    state = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    momentum = [buffer.clone() for buffer in step.optimizer.momentum_buffers.values()]
    scale = step.scaler.get_scale()
    if overflow == "gradients":
        step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**60})
        step(IMAGES, LABELS)
    else:
        step(IMAGES * 1e6, LABELS)  # infinite already in the first convolution, so batch norm sees it too
        assert step.scaler.get_scale() == scale / 2
    after = step.read()
    assert (after.skipped, after.images, after.loss, after.correct) == (1, totals.images, totals.loss, totals.correct)
    assert all(torch.equal(state[name], tensor) for name, tensor in step.model.state_dict().items())
    assert all(map(torch.equal, momentum, step.optimizer.momentum_buffers.values()))


def test_full_precision_does_not_skip_but_shows_a_lost_loss() -> None:
    step = make_step()
    step(IMAGES * float("inf"), LABELS)
    totals = step.read()
    assert totals.skipped == 0
    assert totals.loss != totals.loss
