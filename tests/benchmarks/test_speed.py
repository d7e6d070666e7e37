"""The tables of speed, from small rows: which rows count, what a line says, what is said of missing ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rows
import speed
from sprintnet.runs.environment import PROCESSOR_NAMES, cpu_flags
from sprintnet.runs.io import append_row

AMX = {"cpu": "Intel(R) Xeon(R) Processor", "processor": "amx_bf16", "cores": 2}
AVX2 = {"cpu": "Intel(R) Xeon(R) Processor, as avx2 only", "processor": "avx2", "cores": 2}
EPYC = {"cpu": "AMD EPYC", "cores": 2}  # as in rows without `processor`


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    return tmp_path


def write(folder: Path, name: str, *content: dict[str, Any]) -> None:
    text = "".join(json.dumps({"date": "2026-11-29", "commit": "a" * 40, **row}) + "\n" for row in content)
    (folder / f"{name}.jsonl").write_text(text, "utf-8")


def steps(baseline: list[float], variant: list[float], **more: Any) -> dict[str, Any]:
    return {"ablation": "pytorch", "recipe": "sprint94", "images_per_second": {"a": baseline, "b": variant}, **more}


def pair(seed: int, seconds: float, peer_seconds: float, **more: Any) -> dict[str, Any]:
    ours, peer = ({"seed": seed, "accuracy": 0.94 + seed / 1000, "seconds": value} for value in (seconds, peer_seconds))
    return {"peer": "airbench94_muon", "recipe": "sprint94", "recipe_runs": [ours], "peer_runs": [peer], **more}


def lines_of(table: list[str], *words: str) -> list[str]:
    return [line for line in table if all(word in line for word in words)]


def test_a_line_has_ratio_range_n_and_commit(results: Path) -> None:
    write(results, "ablation", steps([100, 200, 400], [200, 300, 1000], **AMX))
    (line,) = lines_of(list(speed.speed()), "Intel Xeon (AMX), 2 cores")
    assert "| 300 images/s | 200 images/s | 1.50 (1.50 to 2.50) | 3 | 2026-11-29, aaaaaaa |" in line


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)), min_size=2, max_size=7))
def test_the_ratio_of_medians_lies_in_the_range_of_the_pairs(pairs: list[tuple[float, float]]) -> None:
    ratio, _, least, _, most = speed.speedup(*zip(*pairs, strict=True)).replace("(", "( ").replace(")", "").split()
    assert float(least) <= float(ratio) <= float(most)


def test_rounds_of_equal_code_are_joined_and_those_of_older_code_dropped(results: Path) -> None:
    old = pair(0, 900, 900, code_sha256="1", **AMX)
    new = [pair(seed, 100 + seed, 300, code_sha256="2", commit=str(seed) * 40, **AMX) for seed in (0, 2)]
    write(results, "side-by-side", old, *new)
    (line,) = lines_of(list(speed.speed()), "sprint94 against airbench94_muon", "Intel")
    assert "101 s, 94.10% (sd 0.14) | 300 s, 94.10% (sd 0.14) | 2.97 (2.94 to 3.00) | 2 | 2026-11-29, 2222222 |" in line


def test_runs_without_a_seed_have_no_deviation(results: Path) -> None:
    runs = [{"accuracy": accuracy, "seconds": 100} for accuracy in (0.94, 0.95)]
    row = pair(0, 0, 0, **EPYC) | {"recipe_runs": runs, "peer_runs": runs}
    write(results, "side-by-side", row)
    assert lines_of(list(speed.speed()), "AMD EPYC (AVX512-BF16)", "| 100 s, 94.50% | 100 s, 94.50% |")


def test_processors_have_lines_of_their_own_and_missing_ones_a_command(results: Path) -> None:
    write(results, "ablation", *(steps([1], [2], **processor) for processor in (AVX2, EPYC, AMX)))
    table = list(speed.speed())
    first = next(index for index, line in enumerate(table) if "sprint94: SprintNet's kernels" in line)
    names = [line.split(" | ")[1] for line in table[first : first + 4]]
    measured = ["Intel Xeon (AMX), 2 cores", "AMD EPYC (AVX512-BF16), 2 cores", "Intel Xeon as AVX2 only, 2 cores"]
    assert names == [*measured, "AVX-512, NEON"]
    assert "not measured: `python benchmarks/ablation.py pytorch --recipe sprint94`" in table[first + 3]


def test_without_rows_every_comparison_has_a_command(results: Path) -> None:
    table = list(speed.speed())[1:]
    assert len(table) == len(speed.EXPECTED)
    assert len(lines_of(table, "not measured: `")) == len(speed.EXPECTED)


def test_rates_of_kernels_are_named_where_they_were_measured(results: Path) -> None:
    (results / "kernels-avx2.txt").touch()
    listed = list(speed.kernel_rates())
    assert "- AVX2: `benchmarks/results/kernels-avx2.txt`" in listed
    assert all("not measured: `" in line for line in listed if "AVX2" not in line)


def test_uncommitted_changes_are_marked() -> None:
    assert rows.measured({"date": "2026-11-29", "commit": "b" * 40 + "+"}) == "2026-11-29, bbbbbbb+"
    assert rows.hardware({"gpu": "A100", "precision": "fp16"}) == "A100, fp16"


def test_new_rows_record_processor_and_code(tmp_path: Path) -> None:
    append_row(tmp_path / "rows.jsonl", {"n": 1})
    row = json.loads((tmp_path / "rows.jsonl").read_text("utf-8"))
    assert row["processor"] == next((feature for feature in PROCESSOR_NAMES if feature in cpu_flags()), None)
    assert len(row["code_sha256"]) == 64


def test_all_committed_rows_have_a_line() -> None:
    table = "\n".join([*speed.speed(), *speed.optimisations()])
    for name, keys in (("ablation", ("ablation", "recipe")), ("side-by-side", ("peer", "recipe"))):
        for row in rows.newest(name, *keys):
            assert rows.processor(row) in PROCESSOR_NAMES
            assert row.get("ablation") == "strips" or rows.measured(row) in table  # an optimisation that was dropped
