"""Muon against the singular value decomposition and its own formula written out for one matrix."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from sprintnet.training import muon
from sprintnet.training.muon import muon_update, orthogonalise
from sprintnet.training.optim import Optimizer, build_optimizer, set_learning_rates, sgd_update
from sprintnet.training.settings import MuonSettings, OptimSettings


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
@pytest.mark.parametrize("in_bf16", [True, False])
def test_singular_vectors_stay_and_values_come_near_one(
    shape: tuple[int, int], in_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: in_bf16)
    # five steps multiply a small singular value by 3.4445**5 = 485 at most: one below 0.0006 of the norm cannot reach 0.3
    for seed in range(12):
        matrices = torch.randn(5, *shape, generator=torch.Generator().manual_seed(seed))
        result = orthogonalise(matrices, steps=5)
        assert result.dtype == torch.float32
        u, before, v = torch.linalg.svd(matrices, full_matrices=False)
        inner = u.mT @ result @ v.mT  # diagonal, where the singular vectors are kept
        assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 0.05
        values = inner.diagonal(dim1=1, dim2=2)
        assert values.max() < 1.4
        assert values[before > 0.001 * matrices.norm(dim=(1, 2))[:, None]].min() > 0.3


@pytest.mark.parametrize("shape", [(64, 216), (256, 2304)])  # of sprint94's filter banks
def test_three_steps_bring_the_large_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert 0.3 < values.min() <= values.max() < 1.4
    # the quintic of each singular value, three times over
    expected = torch.linalg.svdvals(matrix) / matrix.norm()
    for _ in range(3):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(values, expected.sort(descending=True).values, atol=0.05, rtol=0)


def test_a_batch_is_each_matrix_by_itself() -> None:
    matrices = torch.randn(4, 8, 20, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([orthogonalise(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalise(matrices), alone, atol=1e-2, rtol=0)


def test_two_steps_by_the_formula() -> None:
    banks = [nn.Parameter(torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))) for _ in range(2)]
    banks.append(nn.Parameter(torch.randn(5, 6, 3, 3, generator=torch.Generator().manual_seed(0))))
    idle = nn.Parameter(torch.ones(5, 6, 3, 3))
    expected = [bank.detach().clone() for bank in banks]
    velocities = [torch.zeros_like(bank) for bank in banks]
    group = {"params": [*banks, idle], "lr": 0.1, "update": muon_update, "settings": {"momentum": 0.6}}
    optimizer = Optimizer([group])
    for _ in range(2):
        for index, bank in enumerate(banks):
            bank.grad = torch.randn(bank.shape, generator=torch.Generator().manual_seed(0))
            velocities[index] = 0.6 * velocities[index] + bank.grad
            direction = bank.grad + 0.6 * velocities[index]
            weight = expected[index] * len(bank) ** 0.5 / expected[index].norm()
            expected[index] = weight - 0.1 * orthogonalise(direction.flatten(1)[None])[0].view(bank.shape)
        optimizer.step()
    for bank, value in zip(banks, expected, strict=True):
        torch.testing.assert_close(bank.detach(), value, atol=2e-3, rtol=0)
    assert torch.equal(idle, torch.ones_like(idle))


@pytest.mark.parametrize("overflows", [False, True])
def test_one_batch_of_all_weights_is_the_update_by_shape(overflows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: False)
    draw = torch.Generator().manual_seed(0)
    shapes = [(8, 6, 3, 3), (16, 8, 3, 3), (16, 8, 3, 3), (12, 1, 2, 2)]  # the last has more rows than columns

    def tensors() -> list[torch.Tensor]:
        return [torch.randn(shape, generator=draw).to(memory_format=torch.channels_last) for shape in shapes]

    weights, gradients, buffers = tensors(), tensors(), tensors()
    rule = {"momentum": 0.6, "grad_scale": torch.tensor(8.0), "found_inf": torch.tensor(float(overflows))}
    results = []
    for update, lr in ((muon_update, 0.1), (muon.muon_update_in_one_batch, torch.tensor(0.1))):
        after = [tensor.clone() for tensor in weights], [tensor.clone() for tensor in buffers]
        for weight, gradient in zip(after[0], gradients, strict=True):
            weight.grad = gradient
        update(*after, lr=lr, **rule)  # type: ignore[operator]
        results.append([*after[0], *after[1]])
    for expected, found, before in zip(*results, [*weights, *buffers], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(found, before) == overflows


def network() -> nn.Module:
    model = nn.Module()
    model.whiten = nn.Conv2d(3, 4, 2)
    model.whiten.weight.requires_grad = False
    model.conv = nn.Conv2d(4, 8, 3, bias=False)
    model.norm = nn.BatchNorm2d(8)
    model.linear = nn.Linear(8, 5, bias=False)
    return model


SETTINGS = OptimSettings(max_lr=10, head_lr=40, weight_decay=0.01)


def test_every_parameter_is_in_the_group_of_its_role() -> None:
    model = network()
    optimizer = build_optimizer(model, SETTINGS, MuonSettings(max_lr=0.2))
    roles = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [(sorted(roles[id(p)] for p in group["params"]), group["peak_lr"]) for group in optimizer.param_groups]
    assert groups == [
        (["conv.weight"], 0.2),
        (["linear.weight"], 40),
        (["whiten.bias"], 10),
        (["norm.bias", "norm.weight"], 10),
    ]
    muon, *others = optimizer.param_groups
    assert "weight_decay" not in muon["settings"]
    decays = {group["peak_lr"] * group["settings"]["weight_decay"] for group in others}
    assert decays == {0.1}


def test_without_muon_sgd_trains_the_filters_too() -> None:
    optimizer = build_optimizer(network(), SETTINGS, MuonSettings())
    assert {group["update"] for group in optimizer.param_groups} == {sgd_update}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


def test_a_whitening_bias_has_its_own_rate_and_is_frozen_when_that_is_zero() -> None:
    model = network()
    optimizer = build_optimizer(model, SETTINGS, MuonSettings(max_lr=0.2))
    set_learning_rates(optimizer, 0.5, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 20, 2.5, 5]
    assert model.whiten.bias.requires_grad
    set_learning_rates(optimizer, 0.5, 0.0)
    assert not model.whiten.bias.requires_grad
    set_learning_rates(optimizer, 0.5, 0.1)  # as after a resume from before
    assert model.whiten.bias.requires_grad


@pytest.mark.parametrize("unscales", [True, False])  # False: as on mps, the scaler divides the gradients
def test_a_scaled_step_is_the_step_without_a_scale(unscales: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Optimizer, "_step_supports_amp_scaling", unscales)
    plain, scaled = network(), network()
    scaled.load_state_dict(plain.state_dict())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for model, scale in ((plain, 1.0), (scaled, 2.0**10)):
        optimizer = build_optimizer(model, SETTINGS, MuonSettings(max_lr=0.2))
        for number in range(2):
            generator = torch.Generator().manual_seed(number)
            for parameter in model.parameters():
                parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
            if scale == 1:
                optimizer.step()
            else:
                scaler.scale(torch.ones(()))
                scaler.step(optimizer)  # type: ignore[arg-type]
                scaler.update()
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(a, b)  # a power of two is exact


def test_optimizers_are_saved_and_skipped_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    optimizer = build_optimizer(model, SETTINGS, MuonSettings(max_lr=0.2))
    scaler = torch.amp.GradScaler("cpu")
    read = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: pytest.fail("a step waits for the device"))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.linear.weight.grad[0, 0] = torch.inf  # one overflow, in SGD's part
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.Tensor, "item", read)
    scaler.update()
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert not any(buffer.any() for buffer in optimizer.momentum_buffers.values())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = optimizer.state_dict()
    other = build_optimizer(network(), SETTINGS, MuonSettings(max_lr=0.2))
    other.load_state_dict(state)
    assert other.state_dict()["momentum_buffers"][0].eq(1).all()


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs_in_every_bit(nesterov: bool) -> None:
    ours, theirs = network(), network()
    theirs.load_state_dict(ours.state_dict())
    settings = OptimSettings(max_lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=5e-4)
    optimizer = build_optimizer(ours, settings, MuonSettings())
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    reference = torch.optim.SGD(trained, lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=5e-4, fused=True)
    for number in range(3):
        for model in (ours, theirs):
            generator = torch.Generator().manual_seed(number)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        reference.step()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_training_does_not_import_pytorchs_compiler() -> None:
    script = (
        "import sys\nimport torch\nfrom torch import nn\nfrom sprintnet.training import optim, settings\n"
        "layer = nn.Linear(2, 2)\n"
        "optimizer = optim.build_optimizer(layer, settings.OptimSettings(), settings.MuonSettings())\n"
        "layer(torch.ones(1, 2)).sum().backward()\noptimizer.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_rates_follow_the_batch_size_where_one_is_named() -> None:
    named = OptimSettings(max_lr=10, head_lr=40, batch_size=2000)
    assert named.scaled_to(500) == OptimSettings(max_lr=2.5, head_lr=10, batch_size=2000)
    assert OptimSettings().scaled_to(7) == OptimSettings()
