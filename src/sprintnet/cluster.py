"""Calls of functions on a Ray cluster whose nodes share the folder of this process; nothing but text and numbers is sent."""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprintnet.errors import ArgumentError, error_of
from sprintnet.runs.environment import environment_record

RETRIES = 10  # of a call whose node or process was killed
CONNECT_SECONDS, POLL_SECONDS = 10.0, 0.2
SAVE_SECONDS = 60.0  # in which calls that are told to end do so
Outcome = tuple[int, str]
"""An exit code, 0 for success, and a message."""


@dataclass(frozen=True)
class Call:
    """A call of a function: a name for messages, its arguments, and the CPUs and GPUs that it takes."""

    name: str
    arguments: tuple[Any, ...]
    cpus: int = 1
    gpus: int = 0


def address_of(on: str) -> str:
    """Returns Ray's address for `ray` (the cluster of this machine, or RAY_ADDRESS) or `ray:ADDRESS`; raises ArgumentError."""
    kind, _, address = on.partition(":")
    if kind != "ray" or on == "ray:":
        raise ArgumentError("on", on, "must be ray, or ray:ADDRESS such as ray:10.0.0.1:6379")
    if address.startswith("//"):
        raise ArgumentError("on", on, "is an address for Ray Client; start the command on a node of the cluster, with --on ray")
    return address or "auto"


@contextmanager
def connected(on: str) -> Iterator[None]:
    """Connects this process to a cluster for the block; raises ArgumentError where there is none."""
    import ray

    address = address_of(on)
    try:
        if address != "auto":  # Ray would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        with _handler_kept(signal.SIGTERM):
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        cause = (str(error).splitlines() or ["no cause given"])[0]
        raise ArgumentError("on", on, f"no Ray cluster at {address} ({cause}); start one: ray start --head") from None
    try:
        yield
    finally:
        ray.shutdown()


def call_all(
    function: Callable[..., Outcome], calls: Sequence[Call], on: str, jobs: int = 0, packages: Sequence[str] = ()
) -> Generator[str]:
    """Calls a function of this package on the connected cluster and yields each call's message, in the order of calls.

    At most `jobs` (0: all) run at a time. A call whose process or node is killed is repeated. Where one fails, its error is
    raised at its turn, and the calls that still run are told to end as by Ctrl-C. Nodes must have this code, these versions of
    `packages`, and the folder of this process. Raises ArgumentError where no node has room for a call.
    """
    import ray

    remote = ray.remote(max_calls=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_call_on_node)
    required = _versions(packages)
    running: dict[Any, int] = {}  # result -> number of the call
    waiting, done = list(range(len(calls))), dict[int, Outcome]()
    with _marked(Path.cwd()) as mark:
        try:
            for next_call in range(len(calls)):
                while next_call not in done:
                    while waiting and (not jobs or len(running) < jobs):
                        number = waiting.pop(0)
                        arguments = function, calls[number].arguments, str(mark), required
                        running[remote.options(**_options(calls[number], on)).remote(*arguments)] = number
                    ready, _ = ray.wait(list(running), num_returns=1, timeout=0)
                    if not ready:
                        time.sleep(POLL_SECONDS)  # where signals have their handlers, which Ray would not call
                        continue
                    number = running.pop(result := ready[0])
                    done[number] = _get(result, calls[number])
                code, message = done[next_call]
                if code:
                    raise error_of(code, message)
                yield message
        finally:
            for result in running:
                ray.cancel(result)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=SAVE_SECONDS)


@contextmanager
def _handler_kept(number: signal.Signals) -> Iterator[None]:
    """Undoes that the block handles a signal in its own way, as Ray does SIGTERM."""
    handler = signal.getsignal(number)
    yield
    if threading.current_thread() is threading.main_thread():  # Python sets handlers there only
        signal.signal(number, handler)


def _get(result: Any, call: Call) -> Outcome:
    """Returns what a call has returned."""
    import ray

    try:
        outcome: Outcome = ray.get(result)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        cause = (str(error).splitlines() or ["no cause given"])[0]
        return 1, f"{call.name}: was ended {RETRIES + 1} times ({cause}); repeat the command with --resume"
    except ray.exceptions.RayTaskError as error:
        cause = str(error).strip().splitlines()[-1]
        if "import" not in cause and "No module named" not in cause:
            raise  # a fault of this package, with its traceback
        rule = "a node cannot import what it is to call; install the same version of sprintnet there"
        return 2, f"{call.name}: {rule} ({cause})"
    return outcome


def _options(call: Call, on: str) -> dict[str, Any]:
    """Returns Ray's options for a call; raises ArgumentError where no node of the cluster has room for it."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if not any(node.get("CPU", 0.0) >= call.cpus and node.get("GPU", 0.0) >= call.gpus for node in nodes):
        needed = f"{call.cpus} CPUs{' and a GPU' * bool(call.gpus)}"
        raise ArgumentError("on", on, f"no node has the {needed} of {call.name}; set fewer threads, or add a node")
    return {"name": call.name, "num_cpus": call.cpus, "num_gpus": call.gpus}


def _call_on_node(
    function: Callable[..., Outcome], arguments: tuple[Any, ...], mark: str, required: Mapping[str, str]
) -> Outcome:
    """Calls the function on a node, once it has shown that it sees the folder and has the code of the process that calls."""
    node, folder = socket.gethostname(), Path(mark).parent
    if not Path(mark).exists():
        return 2, f"{folder}: node {node} does not see the same folder; start the command in one that all nodes share"
    found = _versions([name for name in required if name not in ("commit", "code_sha256")])
    if other := [name for name in required if name != "commit" and found[name] != required[name]]:
        has = "; ".join(f"{name} {found[name]}, not {required[name]}" for name in ("commit", *other) if name != "code_sha256")
        return 2, f"node {node} has other versions ({has}); install the same version of sprintnet there, with the same packages"
    os.chdir(folder)  # relative paths mean the same
    try:
        code, message = function(*arguments)
    except KeyboardInterrupt:  # before the function could save anything
        return 130, f"node {node}: interrupted"
    return code, message and f"{message} (on node {node})"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    here = environment_record()
    versions = {package: here["versions"][package] for package in packages}
    return {"commit": str(here["commit"]), "code_sha256": here["code_sha256"], **versions}


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """Creates a file in a folder, by which nodes see that they share it."""
    mark = folder / f".sprintnet-shared-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)
