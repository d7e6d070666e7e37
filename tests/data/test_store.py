"""Decoded pictures in the cache: made once, whole whatever cuts their making short, gone when they are no longer so."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from small_folders import read, write
from sprintnet.data import own
from sprintnet.errors import SprintNetError

pytestmark = pytest.mark.usefixtures("cache")


def test_pictures_are_decoded_once_until_one_changes(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(folder).images.images
    with monkeypatch.context() as patch:
        patch.setattr(own, "read_image", lambda *_: pytest.fail("decoded again"))
        patch.setattr(own, "_header", lambda *_: pytest.fail("looked at again"))
        np.testing.assert_array_equal(read(folder).images.images, first)
    write(folder / "train" / "cat" / "0.png", colour=99)
    assert read(folder).images.images[0, 0, 0, 0] == 99
    assert len(list((cache / "pictures").glob("*/*/*/images"))) == 1  # what is no longer so is gone


KILLED = """
import os, sys
from sprintnet.data import own, store
from sprintnet.data.settings import DataSettings
store.PART = 4
done = []
def fill_and_die(*arguments, real=own.read_image, **options):
    done.append(0)
    if len(done) == 9:
        os.kill(os.getpid(), 9)
    return real(*arguments, **options)
own.read_image = fill_and_die
own.load_own(DataSettings(sys.argv[1]))
"""


def test_a_kill_while_decoding_costs_only_the_rest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert killed.returncode == -9
    monkeypatch.setattr("sprintnet.data.store.PART", 4)
    decoded = []
    real = own.read_image
    monkeypatch.setattr(own, "read_image", lambda *given: decoded.append(given) or real(*given))
    assert read(folder).images.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12] * 2
    assert 0 < len(decoded) < 12


def test_pixels_that_a_power_cut_lost_are_decoded_again(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprintnet.data.store.PART", 4)
    subprocess.run([sys.executable, "-c", KILLED, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    (store,) = cache.glob("pictures/*/*/*/images")
    assert any((store.parent / "done").read_bytes())
    store.write_bytes(bytes(store.stat().st_size))  # what was marked had not reached the disk
    assert read(folder).images.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12] * 2


def test_a_changed_folder_leaves_alone_what_another_process_still_decodes(folder: Path, cache: Path) -> None:
    read(folder)
    (before,) = cache.glob("pictures/*/*/*/images")
    write(folder / "train" / "cat" / "0.png", colour=99)
    with FileLock(before.parent / ".lock"):
        read(folder)
        assert before.exists()
    read(folder)
    assert not before.exists()


def test_one_folder_has_one_store_however_it_is_spelt(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "link").symlink_to(folder)
    read(folder)
    monkeypatch.chdir(folder)
    for spelt in (folder.parent / "link", Path("train/../../data"), Path()):
        monkeypatch.setattr(own, "read_image", lambda *_: pytest.fail("decoded again"))
        assert len(read(spelt).images) == 12
    assert len(list(cache.glob("pictures/*/*"))) == 1


def test_two_processes_decode_once_and_agree(folder: Path) -> None:
    code = "import sys; from sprintnet.data.own import *; print(load_own(DataSettings(sys.argv[1])).images.images.sum())"
    both = [subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=60)[0] for process in both}
    assert said == {f"{read(folder).images.images.sum()}\n"}


def test_a_full_disk_is_a_message(folder: Path) -> None:
    for index in range(40):
        write(folder / "train" / "cat" / f"{index}.png", (64, 64), index)
    code = "import sys; from sprintnet.data.own import *; load_own(DataSettings(sys.argv[1]))"
    limited = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert f"{SprintNetError.__name__}: " in limited.stderr
    assert "no room for 1 MB" in limited.stderr
    assert "SPRINTNET_CACHE" in limited.stderr
    assert len(read(folder).images) == 49


def test_one_decodes_what_the_cache_lacks_and_all_read_what_it_has(folder: Path, cache: Path) -> None:
    read(folder)
    for place in (cache, *cache.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        assert len(read(folder).images) == 12
    finally:
        for place in (cache, *cache.rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)
