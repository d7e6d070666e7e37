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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sprintnet.config import Config, parse_config
from sprintnet.errors import ArgumentError, SprintNetError
from sprintnet.runs.cores import available_cores
from sprintnet.runs.folder import RunFolder


@dataclass(frozen=True)
class Task:
    """A run to finish: the text of its recipe, which has all settings, and its folder."""

    recipe: str
    folder: str


def divide_threads(config: Config, jobs: int) -> Config:
    """Returns the settings for one of several runs at a time: each has its share of the cores, and keeps it.

    Raises ArgumentError for more jobs than cores, or more threads than the cores have.
    """
    cores = available_cores()
    threads = config.threads or max(1, cores // jobs)
    if jobs * threads > cores:
        rule = f"{jobs} runs of {threads} threads each need more than the {cores} cores here; use at most {cores // threads}"
        raise ArgumentError("jobs", jobs, rule)
    return replace(config, threads=threads)


def finish_all(tasks: Sequence[Task], jobs: int) -> Iterator[Task]:
    """Finishes the tasks, `jobs` at a time, and yields each in order once it and all before it are done.

    Where one fails, those that run save their state and end, and its SprintNetError is raised, with its exit code. The same
    happens on Ctrl-C, and where this process is killed.
    """
    running: set[subprocess.Popen[str]] = set()
    has_failed = threading.Event()

    def finish(task: Task) -> Task:
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
            yield from pool.map(finish, tasks)
        finally:
            has_failed.set()
            for process in list(running):
                process.terminate()


def _failure(task: Task, code: int, message: str) -> SprintNetError:
    """Returns the error of a process that ended with this exit code (negative: by a signal)."""
    if code < 0:
        message = f"{task.folder}: its process was ended by {signal.Signals(-code).name}; repeat the command with --resume"
    error = SprintNetError(message.removeprefix("sprintnet: ") or f"{task.folder}: its process ended with exit code {code}")
    error.exit_code = max(code, 1)
    return error


def _main() -> int:
    task = Task(**json.loads(sys.stdin.readline()))

    def end_with_parent() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)  # training saves its state and ends

    threading.Thread(target=end_with_parent, daemon=True).start()
    run = RunFolder(Path(task.folder), is_quiet=True)
    try:
        from sprintnet.training.train import train

        train(parse_config(task.recipe), run, resume=run.config.exists())
    except SprintNetError as error:
        print(f"sprintnet: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main())
