"""Files are replaced whole by one writer at a time, whatever others write there and whatever lies there."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sprintnet.errors import SettingsError
from sprintnet.runs import io
from sprintnet.runs.folder import RunFolder, log_test_access, new_run, read_rows
from sprintnet.runs.io import cache_folder, limit_cache, remove_temporary, replace_folder, restore_folder, write_atomic

WRITER = """
import sys
from pathlib import Path
from sprintnet.runs.io import write_atomic
for _ in range(200):
    write_atomic(Path("shared"), sys.argv[1].encode() * 100_000)
    content = Path("shared").read_bytes()
    assert len(content) == 100_000 and len(set(content)) == 1, "torn"
"""
READER_OF_TESTS = """
import sys
from sprintnet.runs.folder import RunFolder, log_test_access
for number in range(20):
    log_test_access(RunFolder("."), f"{sys.argv[1]}-{number}", {"images": 1, "accuracy": 1})
"""
STARTER = """
import sys, time
from sprintnet.runs.folder import new_run
run = new_run("smoke", exact=False, resume=False)
print(run.path.name, flush=True)
sys.stdin.read()
"""


def together(folder: Path, code: str, *words: str) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", code, word], cwd=folder) for word in words]
    assert [process.wait(timeout=60) for process in processes] == [0] * len(words)


def test_two_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    together(tmp_path, WRITER, "a", "b", "c")
    assert [file.name for file in tmp_path.iterdir()] == ["shared"]


def test_rows_of_evaluations_at_once_are_all_kept(tmp_path: Path) -> None:
    together(tmp_path, READER_OF_TESTS, "a", "b", "c")
    commands = [row["command"] for row in read_rows(RunFolder(tmp_path).test_access)]
    assert sorted(commands) == sorted(f"{word}-{number}" for word in "abc" for number in range(20))
    log_test_access(RunFolder(tmp_path), "last", {"images": 1, "accuracy": 1})
    assert read_rows(RunFolder(tmp_path).test_access)[-1]["command"] == "last"


def test_trainings_that_start_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    start = [sys.executable, "-c", STARTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(start, cwd=tmp_path, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    names = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate()
    assert sorted(names) == ["smoke", "smoke-2", "smoke-3"]
    again = new_run("smoke", exact=False, resume=False, parent=tmp_path / "runs" / "train")  # none of them has begun
    assert again.path.name == "smoke"
    assert pickle.loads(pickle.dumps(again)) == again  # a model carries its run


def test_a_link_that_somebody_planted_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    monkeypatch.setattr(io.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / f"{io.TEMPORARY}guessed").symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "out.csv", "text")
    assert precious.read_text() == "mine"


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    for name in ("old", "young"):
        (tmp_path / f"{io.TEMPORARY}{name}").touch()
    os.utime(tmp_path / f"{io.TEMPORARY}old", (0, 0))
    (tmp_path / "kept").touch()
    remove_temporary(tmp_path)  # what is young may belong to a writer at work
    assert {file.name for file in tmp_path.iterdir()} == {"kept", f"{io.TEMPORARY}young"}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    if not can_exchange:
        monkeypatch.setattr(io, "_exchange", lambda *_: False)
    for text in ("first", "second"):
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / "file").write_text(text)
        replace_folder(tmp_path / "old", tmp_path / "new")
        assert (tmp_path / "old" / "file").read_text() == text


def test_a_folder_that_was_put_aside_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    monkeypatch.setattr(io, "_exchange", lambda *_: False)
    replace, renames = Path.replace, []

    def fail_at_the_second(path: Path, target: Path) -> Path:
        renames.append(target)
        if len(renames) == 2:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", fail_at_the_second)
        replace_folder(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "old").exists()
    restore_folder(tmp_path / "old")
    assert (tmp_path / "old" / "file").read_text() == "old"
    replace_folder(tmp_path / "old", tmp_path / "new")
    restore_folder(tmp_path / "old")
    assert (tmp_path / "old" / "file").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]


@pytest.mark.skipif(sys.platform != "linux", reason="macOS exchanges names by another call")
def test_two_names_are_exchanged_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert io._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()
    assert not io._exchange(tmp_path / "a", tmp_path / "none")


def test_the_cache_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPRINTNET_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept"
    monkeypatch.setenv("SPRINTNET_CACHE", "~nobody-of-this-name/kept")
    with pytest.raises(SettingsError, match=r"SPRINTNET_CACHE=~nobody.*set SPRINTNET_CACHE to the full path"):
        cache_folder()


def test_a_cache_keeps_what_was_used_last_and_what_may_be_in_use(tmp_path: Path) -> None:
    for hours in range(6):
        file = tmp_path / str(hours)
        file.write_bytes(bytes(100))
        used = time.time() - 3600 * hours - 60
        os.utime(file, (used, used))
    limit_cache(tmp_path, 350)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1", "2"]
    limit_cache(tmp_path, 0)
    assert [file.name for file in tmp_path.iterdir()] == ["0"]
