"""Where runs are trained: one after another in this process, several at a time on this machine, or on a cluster."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from sprintnet.cluster import Call, call_all, connected
from sprintnet.config import Config, parse_config
from sprintnet.errors import ArgumentError
from sprintnet.experiments.tasks import Task, finish, finish_all
from sprintnet.runs.cores import available_cores
from sprintnet.runs.folder import RunFolder


@dataclass(frozen=True)
class Placement:
    """`jobs` runs at a time (0: one on this machine, on a cluster as many as it has room for); `on` a Ray cluster, or here."""

    jobs: int = 0
    on: str = ""

    @property
    def is_here(self) -> bool:
        """Whether the runs are trained in this process."""
        return not self.on and self.jobs <= 1

    def fix_runtime(self, config: Config) -> Config:
        """Returns the settings of one of several runs at a time, with its share of the cores, which it keeps.

        On a cluster a run has one core, and the precision that this machine would choose: processors of other nodes may choose
        another. Raises ArgumentError for more jobs than cores, or more threads than the cores have.
        """
        if self.is_here:
            return config
        if self.on:
            return config.changed({"threads": config.threads or 1, "precision": _precision(config)})
        cores = available_cores()
        threads = config.threads or max(1, cores // self.jobs)
        if self.jobs * threads > cores:
            most = cores // threads
            rule = f"{self.jobs} runs of {threads} threads each need more than the {cores} cores here; use at most {most}"
            raise ArgumentError("jobs", self.jobs, rule)
        return replace(config, threads=threads)

    def finish_all(self, tasks: Sequence[Task]) -> Iterator[Task]:
        """Finishes the tasks in processes of their own and yields each in order once it and all before it are done."""
        if not self.on:
            yield from finish_all(tasks, max(self.jobs, 1))
            return
        unfinished = [task for task in tasks if not RunFolder(Path(task.folder)).metrics.exists()]
        calls = [_call(task) for task in unfinished]
        with connected(self.on), closing(call_all(finish, calls, self.on, self.jobs, packages=("torch",))) as outcomes:
            for task in tasks:
                if task in unfinished:
                    next(outcomes)
                yield task


HERE = Placement()
"""In this process, one after another."""


def _precision(config: Config) -> str:
    """Returns the precision that this machine chooses; of a GPU, which it may lack, the setting."""
    if config.device == "cuda":
        return config.precision
    from sprintnet.runtime import select_runtime

    return select_runtime(config.device, config.precision, 1).precision


def _call(task: Task) -> Call:
    """Returns the call that finishes a task on a cluster: it takes a CPU for each thread, and a GPU for the device `cuda`."""
    config = parse_config(task.recipe)
    return Call(task.folder, (task.recipe, task.folder), max(config.threads, 1), int(config.device == "cuda"))
