"""What the tests share: the real sample, a recipe that trains in a second, the command."""

import atexit
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from sprintnet.runs.folder import RunFolder

SAMPLE = Path(__file__).parent / "sample"
"""300 real CIFAR-10 images as PNG: 20 per class for training, 10 for test, which training never uses."""

TINY = [f"data.name={SAMPLE}", "data.val=0.5", "model.width=4", "epochs=2", "batch_size=32", "threads=1", "optim.max_lr=0.1"]
"""Overrides of `davidnet` that train on the sample in about a second."""

CHROMIUM = shutil.which("chromium")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tiny() -> list[str]:
    """Overrides of `davidnet` that train on the sample in about a second."""
    return list(TINY)


def call(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command in this process and returns its exit code and text; a warning is an error."""
    from sprintnet.cli.main import main

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, environment),
        warnings.catch_warnings(action="error"),
    ):
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse
            code = end.code
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, code, *texts)


@pytest.fixture
def sprintnet(tmp_path: Path) -> Command:
    """Runs the command in an empty folder: `sprintnet("train", "smoke").stdout`; keyword arguments are the environment."""
    return partial(call, tmp_path)


@pytest.fixture
def sprintnet_process(tmp_path: Path) -> Command:
    """Runs the command as `sprintnet` does, in a process of its own."""

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "sprintnet", *arguments],
            cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A run on images with several labels, or none, by the commands of a user: trained, reported, exported thrice."""
    from shapes import splits, write_table
    from sprintnet.runs.folder import RunFolder

    folder = tmp_path_factory.mktemp("labels")
    table = write_table(folder, splits())
    settings = [*TINY[2:], "epochs=8", "precision=fp32", "label_smoothing=0.1", "tta=0.3"]
    for command in (
        ["train", "davidnet", "--data", str(table), "--name", "labels", *settings],
        ["export", "runs/train/labels", "--quantize", "fp16", "--quantize", "int8"],
    ):
        done = call(folder, *command)
        assert done.returncode == 0, done.stderr
    return RunFolder(folder / "runs" / "train" / "labels")


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Debian's Chromium."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing: apt-get install chromium")
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # not above: few tests need it

    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def kernels() -> None:
    """Skips where the processor lacks the instructions of the kernels in C, or no compiler is there, which CI must have.

    Whether they can be made otherwise is for the tests to find.
    """
    from sprintnet.runs.environment import cpu_flags

    if "avx512_bf16" not in cpu_flags():
        pytest.skip("the processor has no AVX512-BF16")
    if shutil.which("gcc") is None:
        if os.environ.get("CI"):
            pytest.fail("no gcc: .ci/run installs it")
        pytest.skip("no gcc: apt-get install gcc libc6-dev")


def pytest_configure() -> None:
    """Gives decoded images and embeddings of tests a cache of their own, with built-in data in it; hypothesis no deadline."""
    from hypothesis import settings

    from sprintnet.runs.io import cache_folder

    settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
    settings.load_profile("no deadline")
    if "PYTEST_XDIST_WORKER" in os.environ or "sprintnet-tests-" in os.environ.get("SPRINTNET_CACHE", ""):
        return
    cache = Path(tempfile.mkdtemp(prefix="sprintnet-tests-"))
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    for entry in cache_folder().iterdir() if cache_folder().is_dir() else ():
        if entry.name not in ("decoded", "embeddings"):
            (cache / entry.name).symlink_to(entry.absolute())
    os.environ["SPRINTNET_CACHE"] = str(cache)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests that need the whole CIFAR-10 where it is not cached: tests download nothing."""
    from sprintnet.runs.io import cache_folder

    if not (cache_folder() / "cifar10" / "test_batch.bin").exists():
        skip = pytest.mark.skip(reason="CIFAR-10 is not in the cache: sprintnet data fetch cifar10")
        for item in items:
            if item.get_closest_marker("cifar10"):
                item.add_marker(skip)
