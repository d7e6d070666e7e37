"""The README's commands for one's own data do what it says, on the pictures that come with it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_commands_for_own_data_run(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    section = (ROOT / "README.md").read_text("utf-8").split("<!-- own data:")[1]
    commands = [line.partition("#")[0].strip() for line in section.split("```")[1].splitlines()[1:]]
    assert len(commands) >= 4
    said = []
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "sprintnet"
        quick = ["threads=1"] if words[0] == "train" else []
        done = subprocess.run(
            [sys.executable, "-m", "sprintnet", *words, *quick],
            cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "no problems found" in said[0]
    assert "report: runs/train/mine/report.html" in said[1]
    assert re.search(r"test, 100 images\naccuracy", said[2])
    assert "180 train, 20 val" in said[1]
    assert "180 train, 20 val" in said[3]
    assert (tmp_path / "runs" / "train" / "mine" / "test_access.csv").read_text().count("\n") == 2
