"""Tasks: run folders to finish, each by a process of its own, which continues what an earlier process has left.

python -m sprintnet.experiments.tasks    the process: one task, as JSON, on standard input
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import Timeout

from sprintnet.config import parse_config
from sprintnet.errors import SprintNetError, error_of
from sprintnet.runs.folder import RunFolder
from sprintnet.runs.lease import LEASE_SECONDS


@dataclass(frozen=True)
class Task:
    """A run to finish: the text of its recipe, which has all settings, and its folder."""

    recipe: str
    folder: str


def finish(recipe: str, folder: str) -> tuple[int, str]:
    """Finishes a task, given by its parts, in this process; returns the exit code, and the message of an error.

    A process that has just been told to end, or killed with its node, is waited for.
    """
    run = RunFolder(Path(folder), is_quiet=True)
    try:
        from sprintnet.training.train import train

        run.path.mkdir(parents=True, exist_ok=True)
        lease = run.lease()
        with suppress(Timeout):  # train refuses a folder whose lease is still renewed
            lease.acquire(timeout=LEASE_SECONDS + 5, poll_interval=0.5)
            run = replace(run, claim=lease)
        train(parse_config(recipe), run, resume=run.config.exists())
    except SprintNetError as error:
        return error.exit_code, str(error)
    except OSError as error:
        return (
            1,
            f"{error.filename or folder}: {error.strerror or error}; fix the cause and repeat the command with --resume",
        )
    return 0, ""


def finish_all(tasks: Sequence[Task], jobs: int) -> Iterator[Task]:
    """Finishes the tasks on this machine, `jobs` at a time, and yields each in order once it and all before it are done.

    Where one fails, those that run save their state and end, and its SprintNetError is raised, with its exit code. The same
    happens on Ctrl-C, and where this process is killed.
    """
    running: set[subprocess.Popen[str]] = set()
    has_failed = threading.Event()

    def finish_in_process(task: Task) -> Task:
        if has_failed.is_set() or RunFolder(Path(task.folder)).metrics.exists():
            return task
        command = [sys.executable, "-m", "sprintnet.experiments.tasks"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True, start_new_session=True
        ) as process:
            running.add(process)
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write(json.dumps(asdict(task)) + "\n")
            process.stdin.flush()  # and stays open: its end tells the process that this one has ended
            message = process.stderr.read().strip()
        running.discard(process)
        code = process.returncode
        if code:
            has_failed.set()
            raise _failure(task, code, message)
        return task

    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(finish_in_process, tasks)
        finally:
            has_failed.set()
            for process in list(running):
                process.terminate()


def _failure(task: Task, code: int, message: str) -> SprintNetError:
    """Returns the error of a process that ended with this exit code (negative: by a signal)."""
    if code < 0:
        message = f"{task.folder}: its process was ended by {signal.Signals(-code).name}; repeat the command with --resume"
    return error_of(max(code, 1), message or f"{task.folder}: its process ended with exit code {code}")


def _main() -> int:
    task = Task(**json.loads(sys.stdin.readline()))

    def end_with_parent() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)  # training saves its state and ends

    threading.Thread(target=end_with_parent, daemon=True).start()
    code, message = finish(**asdict(task))
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(_main())
