"""Checkpoints: whatever state goes in comes out, to the bit and to the layout; damage is named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprintnet.errors import SettingsError
from sprintnet.training.checkpoint import load_checkpoint, random_state, save_checkpoint, set_random_state

CPU = torch.device("cpu")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
STATES = st.dictionaries(
    st.text() | st.integers(),
    st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=10),
)


@given(STATES)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_nested_state_comes_back_equal(tmp_path: Path, state: dict[Any, Any]) -> None:
    save_checkpoint(tmp_path / "c", {"state": state})
    assert load_checkpoint(tmp_path / "c", CPU) == {"state": state}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_come_back_to_the_bit_and_to_the_layout(tmp_path: Path, dtype: torch.dtype) -> None:
    plain = (torch.randn(2, 3, 4, 4) * 10).to(dtype)
    tensors = [plain, plain.to(memory_format=torch.channels_last), torch.zeros((), dtype=dtype), torch.empty(0, dtype=dtype)]
    save_checkpoint(tmp_path / "c", {"tensors": tensors})
    loaded = load_checkpoint(tmp_path / "c", CPU)
    for before, after in zip(tensors, loaded["tensors"], strict=True):
        assert (after.dtype, after.stride()) == (before.dtype, before.stride())
        assert torch.equal(before, after)


def test_an_optimizers_state_comes_back(tmp_path: Path) -> None:
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, fused=True)
    layer(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c", optimizer.state_dict())
    loaded = load_checkpoint(tmp_path / "c", CPU)
    assert loaded["param_groups"] == optimizer.state_dict()["param_groups"]
    for index, state in optimizer.state_dict()["state"].items():
        assert torch.equal(loaded["state"][index]["momentum_buffer"], state["momentum_buffer"])
        assert loaded["state"][index]["momentum_buffer"].stride() == state["momentum_buffer"].stride()


def test_random_numbers_go_on_where_they_were() -> None:
    state = random_state(CPU)
    expected = torch.rand(5)
    set_random_state(state, CPU)
    assert torch.equal(torch.rand(5), expected)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff" * 100])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "c").write_bytes(damage)
    with pytest.raises(SettingsError, match="damaged"):
        load_checkpoint(tmp_path / "c", CPU)


def test_a_checkpoint_that_is_cut_short_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"x": torch.zeros(1000)})
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-1])
    with pytest.raises(SettingsError, match="damaged"):
        load_checkpoint(tmp_path / "c", CPU)
