"""The run folder: names, atomic writes, rows, what is said when it is not as it should be."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sprintnet
from sprintnet.errors import SettingsError
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, new_run, open_run, read_json, train_folder
from sprintnet.runs.io import write_atomic, write_json, write_rows


def test_fresh_runs_are_numbered_and_resume_takes_the_newest(tmp_path: Path) -> None:
    def fresh() -> str:
        run = new_run("davidnet", exact=False, resume=False, parent=tmp_path)
        run.path.mkdir(exist_ok=True)
        run.config.touch()
        return run.path.name

    assert [fresh(), fresh(), fresh()] == ["davidnet", "davidnet-2", "davidnet-3"]
    assert new_run("davidnet", exact=False, resume=True, parent=tmp_path).path.name == "davidnet-3"


def test_the_settings_of_a_run_resume_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("runs/train/smoke", "runs/train/smoke-2", "elsewhere/smoke"):
        Path(place).mkdir(parents=True)
        Path(place, "config.toml").touch()
        assert train_folder(f"{place}/config.toml", None, resume=True).path == Path(place)
    assert train_folder("runs/train/smoke/config.toml", None, resume=False).path == Path("runs/train/smoke-3")
    assert train_folder("runs/train/smoke/config.toml", "smoke-2", resume=True).path == Path("runs/train/smoke-2")
    assert train_folder("smoke", None, resume=True).path == Path("runs/train/smoke-2")


def test_a_study_killed_in_its_first_run_is_the_newest(tmp_path: Path) -> None:
    for name, file in (("davidnet", "config.toml"), ("davidnet-2", "seed-0/config.toml")):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).touch()
    assert new_run("davidnet", exact=False, resume=True, parent=tmp_path).path.name == "davidnet-2"
    assert new_run("davidnet", exact=False, resume=False, parent=tmp_path).path.name == "davidnet-3"


def test_resuming_a_run_that_never_began_starts_it(tmp_path: Path) -> None:
    assert new_run("davidnet", exact=False, resume=True, parent=tmp_path).path == tmp_path / "davidnet"


def test_a_chosen_name_is_never_changed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert new_run("mine", exact=True, resume=False, parent=tmp_path).path == tmp_path / "mine"  # nothing began there
    (tmp_path / "mine" / "config.toml").touch()
    with pytest.raises(SettingsError, match="exists; choose another name, or resume it"):
        new_run("mine", exact=True, resume=False, parent=tmp_path)
    assert new_run("mine", exact=True, resume=True, parent=tmp_path).path == tmp_path / "mine"


@pytest.mark.parametrize("name", ["..", "a/b", "", ".", "/tmp/x", "a\\b", "\0", "a\nb", "n" * 300])
def test_a_name_is_one_folder_under_runs(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="a single folder name"):
        new_run(name, exact=True, resume=False, parent=tmp_path)


def test_an_unfinished_run_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such run folder"):
        open_run(tmp_path / "none")
    (tmp_path / "config.toml").touch()
    with pytest.raises(SettingsError, match=r"weights.safetensors, metrics.json missing; .*--resume"):
        open_run(tmp_path)


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_atomic(file, "old")

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_rows_and_json_read_back(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    with (tmp_path / "rows.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"epoch": "1", "loss": "0.5"}, {"epoch": "2", "loss": "0.25"}]
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None]}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SettingsError, match="damaged"):
        read_json(tmp_path / "a.json")


def test_what_is_logged_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path)
    run.log("one")
    run.log("two")
    assert capsys.readouterr().out == run.log_text.read_text() == "one\ntwo\n"


def test_the_environment_names_versions_and_hardware_but_neither_path_nor_host() -> None:
    record = environment_record(precision="bf16")
    assert record["precision"] == "bf16"
    assert record["versions"]["torch"][0].isdigit()
    assert record["cpu"]
    text = json.dumps({key: value for key, value in record.items() if key != "command"})
    assert str(Path.home()) not in text
    assert os.uname().nodename not in text


def test_the_commit_has_a_mark_where_the_package_is_changed_and_only_there(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    def recorded() -> str:
        script = "from sprintnet.runs.environment import environment_record; print(environment_record()['commit'])"
        path = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, "-c", script], env=path, capture_output=True, text=True, check=True
        ).stdout.strip()

    package = tmp_path / "src" / "sprintnet"
    shutil.copytree(Path(sprintnet.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    git("init", "--quiet")
    assert recorded() == "None"
    git("add", "-A")
    git("commit", "--quiet", "-m", "first")
    (tmp_path / "results.jsonl").write_text("a row")
    assert recorded() == git("rev-parse", "HEAD")
    (package / "new.py").write_text("")
    assert recorded() == git("rev-parse", "HEAD") + "+"
