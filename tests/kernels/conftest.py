"""Kernels that are available, or not, whatever the machine; choices are forgotten between tests."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from sprintnet.kernels import build, dispatch


@pytest.fixture(autouse=True)
def forget_choices() -> Iterator[Callable[[], None]]:
    """Clears the caches of dispatch.py before and after a test, and when called."""

    def clear() -> None:
        for name in ("choose_conv3x3", "can_fuse_conv_pool", "can_pool", "can_fuse_silu"):
            getattr(dispatch, name).cache_clear()

    clear()
    yield clear
    clear()


@pytest.fixture
def unavailable(monkeypatch: pytest.MonkeyPatch, forget_choices: Callable[[], None]) -> Callable[[], None]:
    """Makes all kernels unavailable when called."""

    def remove() -> None:
        monkeypatch.setattr(build, "_library", lambda name, sources: "removed by a test")
        forget_choices()

    return remove


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all kernels seem available, for tests of the choice alone: none of them can be called."""
    monkeypatch.setattr(build, "_library", lambda name, sources: ctypes.CDLL(None))


@pytest.fixture
def gcc() -> None:
    """Skips where there is no compiler, which CI must have."""
    if shutil.which("gcc") is None:
        if os.environ.get("CI"):
            pytest.fail("no gcc: .ci/run installs it")
        pytest.skip("no gcc: apt-get install gcc libc6-dev")
