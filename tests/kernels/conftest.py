"""Kernels that are available, or not, whatever the machine; choices are forgotten between tests."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import emulated_arm
from sprintnet.kernels import build, dispatch
from sprintnet.kernels.build import PROCESSORS
from sprintnet.kernels.compiler import ASIMD, AVX2, AVX512, InstructionSet
from sprintnet.runs.environment import cpu_flags

X86_64 = InstructionSet("x86-64", ("-march=x86-64",), frozenset({"sse2"}))
"""What every x86-64 processor has."""


@pytest.fixture(autouse=True)
def forget_choices() -> Iterator[Callable[[], None]]:
    """Clears the caches of dispatch.py before and after a test, and when called."""

    def clear() -> None:
        for name in ("choose", "pooling_library", "batchnorm_library"):
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


@pytest.fixture(params=["amx", "emulated"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, gcc: None) -> Iterator[None]:
    """Kernels with tile instructions: those of the processor, then the same in scalar C, built for any x86-64 processor."""
    if request.param == "amx" and "amx_bf16" not in cpu_flags():
        pytest.skip("the processor has no AMX; the emulation is tested")
    if request.param == "emulated":
        monkeypatch.setattr(build, "instruction_sets", lambda name: (X86_64,))
    forget = build._library.cache_clear  # a test may replace the function
    forget()
    yield
    forget()


@pytest.fixture(params=[X86_64, AVX2, AVX512, ASIMD], ids=lambda instructions: instructions.name)
def vectors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, gcc: None) -> Iterator[None]:
    """Kernels in fp32, built for vectors of 4, 8 and 16 values, as far as the processor has them; those of ARM are emulated."""
    if not request.param.features <= cpu_flags():
        if request.param is not ASIMD:
            pytest.skip(f"the processor has no {request.param.name}")
        emulated_arm.emulate(monkeypatch, request.getfixturevalue("arm_caller"))
    monkeypatch.setattr(build, "instruction_sets", lambda name: (request.param,))
    forget = build._library.cache_clear  # a test may replace the function
    forget()
    yield
    forget()


@pytest.fixture(scope="session")
def arm_caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that calls kernels for ARM; skips where the cross compiler or the emulator is missing, which CI must have."""
    if missing := [str(path) for path in emulated_arm.NEEDED if not path.exists()]:
        message = f"no {', '.join(missing)}: apt-get install {emulated_arm.PACKAGES}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return emulated_arm.compile_caller(tmp_path_factory.mktemp("arm"))


@pytest.fixture
def on_processor(monkeypatch: pytest.MonkeyPatch, forget_choices: Callable[[], None]) -> Callable[[str | None], None]:
    """Called with the name of a feature, makes choices those for a processor that has it as its newest."""

    def set_processor(name: str | None) -> None:
        monkeypatch.setattr(dispatch, "processor", lambda precision: name if name in PROCESSORS.get(precision, ()) else None)
        forget_choices()

    return set_processor


@pytest.fixture
def gcc() -> None:
    """Skips where there is no compiler, which CI must have."""
    if shutil.which("gcc") is None:
        if os.environ.get("CI"):
            pytest.fail("no gcc: .ci/run installs it")
        pytest.skip("no gcc: apt-get install gcc libc6-dev")
