"""Decode cache: images are decoded once, completely even after a kill, and removed when they are stale."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from small_folders import read, write
from sprintnet import progress
from sprintnet.config import load_config
from sprintnet.data.custom import headers, load
from sprintnet.data.load import load_splits
from sprintnet.errors import SprintNetError

pytestmark = pytest.mark.usefixtures("cache")


def test_images_are_decoded_once_until_one_changes(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(folder).images.images
    with monkeypatch.context() as patch:
        patch.setattr(load, "read_image", lambda *_: pytest.fail("decoded again"))
        patch.setattr(headers, "_read_header", lambda *_: pytest.fail("looked at again"))
        np.testing.assert_array_equal(read(folder).images.images, first)
    write(folder / "train" / "cat" / "0.png", colour=99)
    assert read(folder).images.images[0, 0, 0, 0] == 99
    assert len(list((cache / "decoded").glob("*/*/*/images"))) == 1  # what is no longer so is gone


def test_long_decoding_is_said_before(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SAID_SECONDS", 0.0)
    monkeypatch.setattr(load, "MAX_SEQUENTIAL_PIXELS", 0)
    read_image, said = load.read_image, []

    def noted(*settings: Any) -> Any:
        said.append(capfd.readouterr().err)
        return read_image(*settings)

    monkeypatch.setattr(load, "read_image", noted)
    images = read(folder).images
    assert re.fullmatch(rf"decoding {len(images)} images, once, into .*cache\d* \(0 MB\): about 0 s\n", said[3])
    assert not any(said[:3])


KILLED = """
import os, sys, time
from sprintnet.data.custom import load
from sprintnet.data.custom import decode_cache
from sprintnet.data.settings import DataSettings
from sprintnet.runs.io import cache_folder
decode_cache.CHUNK_SIZE = 4
done = []
def fill_and_die(*arguments, real=load.read_image, **options):
    done.append(0)
    for _ in range(1 if len(done) < 12 else 1000):  # until a finished chunk is marked, by another thread perhaps
        if len(done) >= 9 and any(log.read_text() for log in cache_folder().glob("decoded/*/*/*/done.jsonl")):
            os.kill(os.getpid(), 9)
        time.sleep(0.01)
    return real(*arguments, **options)
load.read_image = fill_and_die
load.load_custom(DataSettings(sys.argv[1]))
"""


@pytest.mark.parametrize("side", [8, 80])  # on one thread, on all cores
def test_decoding_continues_after_a_kill(folder: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    for file in folder.rglob("*.png"):
        Image.open(file).resize((side, side)).save(file)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert killed.returncode == -9
    monkeypatch.setattr("sprintnet.data.custom.decode_cache.CHUNK_SIZE", 4)
    decoded = []
    real = load.read_image
    monkeypatch.setattr(load, "read_image", lambda *given: decoded.append(given) or real(*given))
    assert read(folder).images.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12] * 2
    assert 0 < len(decoded) < 12


def test_pixels_lost_in_a_power_cut_are_decoded_again(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprintnet.data.custom.decode_cache.CHUNK_SIZE", 4)
    subprocess.run([sys.executable, "-c", KILLED, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    (stored,) = cache.glob("decoded/*/*/*/images")
    assert (stored.parent / "done.jsonl").read_text()
    stored.write_bytes(bytes(stored.stat().st_size))  # what was marked had not reached the disk
    assert read(folder).images.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12] * 2


def test_stale_entries_are_removed_unless_locked(folder: Path, cache: Path) -> None:
    read(folder)
    (images,) = cache.glob("decoded/*/*/*/images")
    source, other = images.parents[2], images.parents[2] / "another state"
    other.mkdir()
    with FileLock(source / ".lock"):
        read(folder)
        assert other.exists()
    read(folder)
    assert not other.exists()
    assert images.exists()


def test_concurrent_processes_agree_on_a_changed_folder(folder: Path) -> None:
    load = "import sys; from sprintnet.data.custom.load import *"
    code = f"{load}; print(load_custom(DataSettings(sys.argv[1])).images.images.sum())"
    for colour in (100, 101):
        write(folder / "train" / "cat" / "0.png", colour=colour)
        words = [sys.executable, "-c", code, str(folder)]
        three = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        said = {process.communicate(timeout=60)[0] for process in three}
        assert said == {f"{read(folder).images.images.sum()}\n"}


def test_all_spellings_of_a_folder_share_one_cache(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "link").symlink_to(folder)
    read(folder)
    monkeypatch.chdir(folder)
    for spelt in (folder.parent / "link", Path("train/../../data"), Path()):
        monkeypatch.setattr(load, "read_image", lambda *_: pytest.fail("decoded again"))
        assert len(read(spelt).images) == 12
    assert len(list(cache.glob("decoded/*/*/*/images"))) == 1


@pytest.mark.parametrize(("room", "said"), [(100_000, "no space for 1 MB"), (300, "cannot be written")])
def test_a_full_disk_is_a_message(folder: Path, room: int, said: str) -> None:
    for index in range(40):
        write(folder / "train" / "cat" / f"{index}.png", (64, 64), index)
    load = "import sys; from sprintnet.data.custom.load import *"
    code = f"{load}; load_custom(DataSettings(sys.argv[1]))"
    limited = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip
    assert f"{SprintNetError.__name__}: " in limited.stderr
    assert f"{said} (File too large)" in limited.stderr
    assert "SPRINTNET_CACHE" in limited.stderr
    assert len(read(folder).images) == 49


def test_a_full_read_only_cache_can_be_read(unprivileged_folder: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(10):
            write(unprivileged_folder / name / f"{index}.png", colour=index)
    config, cache = load_config("davidnet", [f"data.name={unprivileged_folder}"]), unprivileged_folder.parent / "cache"
    assert sum(map(len, load_splits(config.data, test=True).values())) == 20
    places = [cache, *cache.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        assert sum(map(len, load_splits(config.data, test=True).values())) == 20
        write(unprivileged_folder / "cat" / "new.png")
        with pytest.raises(SprintNetError, match=r"cannot be written \(Permission denied\); .*SPRINTNET_CACHE"):
            load_splits(config.data)
    finally:
        for place in places:
            place.chmod(0o755 if place.is_dir() else 0o644)


def test_an_image_replaced_by_one_of_equal_size_and_time_is_decoded_again(folder: Path) -> None:
    first, second = (folder / "train" / "cat" / f"{number}.bmp" for number in range(2))
    for number, file in enumerate((first, second)):
        write(file, colour=100 + number)
        os.utime(file, (1_700_000_000, 1_700_000_000))

    def colours() -> list[int]:
        found = read(folder).images
        return [
            int(image[0, 0, 0]) for image, file in zip(found.images, found.files or (), strict=True) if file.endswith(".bmp")
        ]

    assert colours() == [100, 101]
    other = first.with_suffix(".other")
    first.rename(other)
    second.rename(first)
    other.rename(second)
    assert colours() == [101, 100]
    write(first, colour=200)
    os.utime(first, (1_700_000_000, 1_700_000_000))
    assert colours() == [200, 100]


@pytest.mark.parametrize("name", ["images", "decoded.json", "headers.json", "one-colour-all.json"])
def test_damaged_files_of_the_cache_are_made_anew_with_a_note(folder: Path, cache: Path, name: str) -> None:
    expected = read(folder).images
    (file,) = cache.glob(f"decoded/*/*/{name}" if name == "headers.json" else f"decoded/*/*/*/{name}")
    content = file.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        file.unlink()  # not written in place: the pixels above are mapped from it
        file.write_bytes(changed)
        found = read(folder)
        np.testing.assert_array_equal(found.images.images, expected.images)
        assert any("was damaged, computed again" in note for note in found.notes)
    for damage in (content[:-1], content[: len(content) // 2], b"", content + b"x"):
        file.unlink()
        file.write_bytes(damage)
        np.testing.assert_array_equal(read(folder).images.images, expected.images)
    assert not any("damaged" in note for note in read(folder).notes)
