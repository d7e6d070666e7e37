"""Damaged images, tables, archives, settings and models: each is read or refused, in bounded time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults.mutations import MAX_GIB
from faults.soak import IS_SOAK, record

COUNTS = {"images": (300, 10_000), "tables": (60, 1_000), "archives": (60, 500), "settings": (150, 5_000), "models": (25, 500)}
"""Cases in the suite, and in `make soak`."""


@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_input_is_read_or_refused(kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue("small_model") if kind == "models" else ""
    count = COUNTS[kind][IS_SOAK]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("mutations.py")), kind, "0", str(count)],
        env={**os.environ, "SPRINTNET_MODEL": str(model), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])  # ONNX Runtime may print before
    assert found["tried"] == count
    assert 0 < found["refused"] <= count
    assert found["more_gib"] < MAX_GIB
    record(f"mutated {kind}", **found)
