"""The README's commands for custom datasets run, on the sample images of the tests."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FEW_STEPS = ["threads=1", "epochs=2"]


def test_the_commands_for_custom_datasets_run(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    section = (ROOT / "README.md").read_text("utf-8").split("<!-- custom data:")[1]
    commands = [line.partition("#")[0].strip() for line in section.split("```")[1].splitlines()[1:]]
    assert len(commands) >= 4
    printed = []
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "sprintnet"
        settings = FEW_STEPS if words[0] == "train" else []
        done = subprocess.run(
            [sys.executable, "-m", "sprintnet", *words, *settings],
            cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert "no problems found" in printed[0]
    assert "report: runs/train/mine/report.html" in printed[1]
    assert re.search(r"test, 100 images\n(top-1 )?accuracy", printed[2])
    assert "180 train, 20 val" in printed[1]
    assert "180 train, 20 val" in printed[3]
    assert (tmp_path / "runs" / "train" / "mine" / "test_access.csv").read_text().count("\n") == 2
