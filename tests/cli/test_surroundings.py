"""What the command finds around it: closed streams, odd variables, no home, little memory, `python -OO`, a narrow terminal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import SAMPLE, TINY

SPRINTNET = [sys.executable, "-m", "sprintnet"]
TRAIN = ["train", "davidnet", *TINY, "epochs=1", "--name", "R"]


def shell(folder: Path, command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    words = f"set -- {' '.join(SPRINTNET)}; {command}"
    return subprocess.run(
        ["bash", "-c", words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(tmp_path: Path, closed: str) -> None:
    done = shell(tmp_path, f'"$@" check {SAMPLE} {closed}')
    assert done.returncode == 0, done.stderr
    assert shell(tmp_path, f'"$@" train epocs=3 {closed}').returncode == 2


def test_a_full_device_is_one_message(tmp_path: Path) -> None:
    done = shell(tmp_path, '"$@" recipes > /dev/full')
    assert done.returncode == 1
    assert done.stderr == "sprintnet: No space left on device; fix the cause and run the command again\n"


def test_a_terminal_of_one_column_ends_the_help(tmp_path: Path) -> None:
    for words in ("--help", "train smoke --help", "train smoke --help all"):
        done = shell(tmp_path, f'ulimit -v 4000000; "$@" {words}', COLUMNS="1")
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout.lower()


def test_a_notebooks_backend_that_is_not_installed_is_not_used(tmp_path: Path) -> None:
    done = shell(tmp_path, f'"$@" {" ".join(TRAIN)}', MPLBACKEND="module://none.such_backend")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "train" / "R" / "report.html").exists()


def test_optimised_python_gives_the_same_help_and_weights(tmp_path: Path) -> None:
    written = []
    for flag in ("", "-O", "-OO"):
        folder = tmp_path / f"flag{flag}"
        folder.mkdir()
        help_text = subprocess.run(
            [sys.executable, *flag.split(), "-m", "sprintnet", "--help"], capture_output=True, check=True
        )
        command = [sys.executable, *flag.split(), "-m", "sprintnet", *TRAIN, "--no-report"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        written.append((help_text.stdout, (folder / "runs" / "train" / "R" / "weights.safetensors").read_bytes()))
    assert len(set(written)) == 1


def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may become another user")
    code = (
        "import os, sys; from sprintnet.cli import data, main; from sprintnet.runs.io import cache_folder; "
        "main.VERBS['check'] = (lambda options: cache_folder(), '', []); main.docstring = lambda run: ''; "
        "os.setuid(54321); sys.exit(main.main(['check']))"
    )
    environment = {key: text for key, text in os.environ.items() if key not in ("HOME", "SPRINTNET_CACHE", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("sprintnet: the user has no home folder for the cache; set SPRINTNET_CACHE to the full path")


def test_too_little_memory_is_one_message(tmp_path: Path) -> None:
    # batches of 300 images at 40 times the width: 4 GB
    settings = " ".join([*TINY, "batch_size=150", "model.width=640", "precision=fp32", "epochs=1"])
    done = shell(tmp_path, f'ulimit -v 4500000; "$@" train davidnet --name R --no-report {settings}')
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1
    assert "memory" in done.stderr


@pytest.mark.parametrize("words", [["check", str(SAMPLE)], ["data", "list"]])
def test_the_first_process_of_a_container_obeys_sigterm(tmp_path: Path, words: list[str]) -> None:
    # SIGTERM with its default action is what the kernel withholds from process 1
    code = (
        "import signal, sys; from sprintnet.cli import main, data; "
        "check = lambda options: print(signal.getsignal(signal.SIGTERM).__name__, flush=True) or signal.pause(); "
        "main.VERBS = {name: (check, *verb[1:]) for name, verb in main.VERBS.items()}; "
        "main.docstring = lambda run: ''; "
        "sys.exit(main.main(sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "interrupt\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert errors == "sprintnet: SIGTERM: interrupted; finished files are kept\n"
