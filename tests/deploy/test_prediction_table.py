"""`predict --output`: shards that together are the whole, unreadable files as rows, a killed command that continues."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from conftest import SAMPLE, Command
from sprintnet.deploy import prediction_table
from sprintnet.errors import ArgumentError
from sprintnet.runs.shards import parse_shard, shard

TEST = str(SAMPLE / "test")


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        return list(csv.DictReader(lines))


def names(folder: Path) -> list[str]:
    records = {f".{path.name}.json" for path in folder.iterdir()}
    return sorted({path.name for path in folder.iterdir()} - records)


@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_shards_are_all_files_each_once(files: list[int], parts: int) -> None:
    found = [list(shard(files, part, parts)) for part in range(1, parts + 1)]  # type: ignore[arg-type]
    assert sorted(file for each in found for file in each) == sorted(files)  # type: ignore[type-var]
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("text", ["17/16", "0/4", "3", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="must be K/N with K from 1 to N, such as 3/16"):
        parse_shard(text)


def test_shards_together_are_the_whole(model: Path, sprintnet: Command, tmp_path: Path) -> None:
    printed = sprintnet("predict", str(model), TEST, "--format", "csv")
    whole = sprintnet("predict", str(model), TEST, "--output", "whole.csv")
    assert (whole.returncode, whole.stdout) == (0, "whole.csv: 100 files\n"), whole.stderr
    expected = list(csv.DictReader(printed.stdout.splitlines()))
    assert expected == rows(tmp_path / "whole.csv")
    for part in (1, 2, 3):
        assert sprintnet("predict", str(model), TEST, "--shard", f"{part}/3", "--output", f"part-{part}.csv").returncode == 0
    parts = [rows(tmp_path / f"part-{part}.csv") for part in (1, 2, 3)]
    assert [len(part) for part in parts] == [34, 33, 33]
    assert [parts[number % 3][number // 3] for number in range(100)] == rows(tmp_path / "whole.csv")
    assert names(tmp_path) == ["part-1.csv", "part-2.csv", "part-3.csv", "whole.csv"]


def test_a_parquet_table_has_the_same_rows(model: Path, sprintnet: Command, tmp_path: Path) -> None:
    for name in ("table.csv", "table.parquet"):
        assert sprintnet("predict", str(model), TEST, "--top", "2", "--output", name).returncode == 0
    found = parquet.read_table(tmp_path / "table.parquet").to_pylist()
    for row, expected in zip(found, rows(tmp_path / "table.csv"), strict=True):
        assert list(row) == list(expected)
        assert (row["file"], row["class_2"], row["error"]) == (expected["file"], expected["class_2"], None)
        assert row["probability_1"] == pytest.approx(float(expected["probability_1"]), abs=1e-6)


def test_files_that_cannot_be_read_are_rows(model: Path, sprintnet: Command, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "d.png"):
        Image.new("RGB", (32, 32), "red").save(folder / name)
    for name in ("a.png", "c.png", "e.png"):
        (folder / name).write_text("no image")
    (folder / os.fsdecode(b"f\xff.png")).write_text("no image, and a name that is no text")
    for output in ("table.csv", "table.parquet") * 2:  # the second time it is there already
        done = sprintnet("predict", str(model), "photos", "--output", output)
        assert done.returncode == 3
        assert done.stderr == f"sprintnet: 4 of 6 files could not be read; the column error of {output} says why\n"
    found = rows(tmp_path / "table.csv")
    assert [Path(row["file"]).name for row in found] == ["a.png", "b.png", "c.png", "d.png", "e.png", "f\udcff.png"]
    assert [bool(row["predicted"]) for row in found] == [False, True, False, True, False, False]
    assert "a.png: " in found[0]["error"]
    assert parquet.read_table(tmp_path / "table.parquet").column("file")[5].as_py() == "photos/f\\xff.png"


def test_a_killed_command_continues_and_predicts_no_chunk_twice(model: Path, tmp_path: Path) -> None:
    code = "import sys; from sprintnet.deploy import prediction_table; prediction_table.CHUNK = 10\n"
    code += "from sprintnet.deploy.predictor import Predictor; read = Predictor.read\n"
    code += "def slow(self, image):\n  import time; time.sleep(0.01); print(image, flush=True); return read(self, image)\n"
    code += "Predictor.read = slow\nfrom sprintnet.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "predict", str(model), TEST, "--output", "table.csv"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    while len(list(tmp_path.glob(".table.csv.*.chunks/*.csv"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "table.csv").exists()
    kept = len(list(tmp_path.glob(".table.csv.*.chunks/*.csv")))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = [line for line in done.stdout.splitlines() if line.endswith(".png")]
    assert len({*again}) == 100 - 10 * kept
    assert len(rows(tmp_path / "table.csv")) == 100
    assert names(tmp_path) == ["table.csv"]


def test_chunks_of_another_model_or_other_files_are_not_taken(
    model: Path, sprintnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prediction_table, "_join", fail)
        assert sprintnet("predict", str(model), TEST, "--output", "table.csv").returncode == 130
    (chunk,) = tmp_path.glob(".table.csv.*.chunks/000000.csv")
    text = chunk.read_text("utf-8")
    chunk.write_text(text.replace("0000.png", "other.png", 1), "utf-8")
    assert sprintnet("predict", str(model), TEST, "--output", "table.csv", "--top", "2").returncode == 0
    assert len(rows(tmp_path / "table.csv")[0]) == 8  # other options: other chunks
    (tmp_path / "table.csv").unlink()
    assert sprintnet("predict", str(model), TEST, "--output", "table.csv").returncode == 0
    assert not any("other.png" in row["file"] for row in rows(tmp_path / "table.csv"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shards", "4", "--output", "table.csv"], "--shards 4: is for --on; here, predict one: --shard 1/4"),
        (["--shard", "17/16"], "--shard 17/16: must be K/N with K from 1 to N"),
        (["--output", "table.xlsx"], "--output table.xlsx: must end in .csv or .parquet"),
        (["--output", "nowhere/table.csv"], "--output nowhere/table.csv: the folder nowhere does not exist; create it first"),
    ],
)
def test_mistakes(model: Path, sprintnet: Command, words: list[str], message: str) -> None:
    done = sprintnet("predict", str(model), TEST, *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_table_that_is_there_is_kept(model: Path, sprintnet: Command, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("kept")
    done = sprintnet("predict", str(model), TEST, "--output", "table.csv")
    assert done.returncode == 2
    assert "--output table.csv: exists, and this command has not written it; remove it, or name another file" in done.stderr
    assert (tmp_path / "table.csv").read_text() == "kept"


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_the_same_command_keeps_its_table_and_another_refuses(
    model: Path, sprintnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    command = ["predict", str(model), TEST, "--output", name]
    first = sprintnet(*command)
    assert first.returncode == 0, first.stderr
    content = (tmp_path / name).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(prediction_table, "predict_files", lambda *_: pytest.fail("predicted again"))
        again = sprintnet(*command)
    said = f"{name}: already written by this command; remove it where images have changed\n"
    assert (again.returncode, again.stdout) == (0, said + first.stdout)
    assert (tmp_path / f".{name}.json").is_file()
    for other in ([*command, "--top", "2"], [*command, f"{TEST}/../train"], [*command, "--unknown", "0.05"]):
        assert sprintnet(*other).returncode == 2, other
    assert (tmp_path / name).read_bytes() == content
    (tmp_path / name).write_bytes(content + b"edited")
    assert "this command has not written it" in sprintnet(*command).stderr
