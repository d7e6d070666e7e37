"""Fixtures: small datasets and folders, an empty cache, a web server."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from small_folders import write
from small_sets import RECORDS, Respond, Server, expect, python_version, to_idx
from sprintnet.data.builtin import cifar, download
from sprintnet.data.builtin.registry import BUILTIN_DATASETS


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache is an empty folder."""
    monkeypatch.setenv("SPRINTNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, empty_cache: None, tmp_path: Path) -> dict[str, bytes]:
    """Six small files in the binary layout as the official ones of CIFAR-10; no sources and no programs exist."""
    generator = np.random.default_rng(0)
    contents = {}
    for official in cifar.CIFAR10_FILES:
        records = generator.integers(0, 256, (RECORDS, 1 + 3 * cifar.PIXELS), dtype=np.uint8)
        records[:, 0] %= 10
        contents[official.name] = records.tobytes()
    expect(monkeypatch, "cifar10", list(contents.values()), list(map(python_version, contents.values())))
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    return contents


@pytest.fixture
def idx(monkeypatch: pytest.MonkeyPatch, empty_cache: None) -> dict[str, np.ndarray]:
    """Small arrays by the names of MNIST's files, as the official ones; no sources exist."""
    generator = np.random.default_rng(0)
    arrays = {}
    for file, shape in zip(BUILTIN_DATASETS["mnist"].files, ((7, 28, 28), (7,), (3, 28, 28), (3,)), strict=True):
        arrays[file.name] = generator.integers(0, 256 if len(shape) == 3 else 10, shape, np.uint8)
    expect(monkeypatch, "mnist", list(map(to_idx, arrays.values())))
    return arrays


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Respond], Server]]:
    """Starts a server, which is stopped after the test; downloads may use http."""
    monkeypatch.setattr(download, "ALLOWED_SCHEMES", ("http",))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running: list[Server] = []

    def start(respond: Respond) -> Server:
        running.append(Server(respond))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The cache is an empty folder, except for tests of the real CIFAR-10."""
    place = tmp_path_factory.mktemp("cache")
    if not request.node.get_closest_marker("cifar10"):
        monkeypatch.setenv("SPRINTNET_CACHE", str(place))
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of two classes in train/ and test/."""
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            for index in range(3):
                write(tmp_path / "data" / part / name / f"{index}.png", colour=10 * label + index)
    return tmp_path / "data"


@pytest.fixture
def unprivileged_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder; the test runs as an unprivileged user, since root may read everything."""
    is_root = os.geteuid() == 0
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setenv("SPRINTNET_CACHE", f"{folder}/cache")
        if is_root:
            os.seteuid(65534)
        data = Path(folder) / "data"
        data.mkdir()
        try:
            yield data
        finally:
            data.chmod(0o700)
            for place in data.rglob("*"):
                place.chmod(0o700)
            if is_root:
                os.seteuid(0)
