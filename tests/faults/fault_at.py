"""The command with a fault at its Nth file event: `python fault_at.py kill|full N WORD...`.

File events are the moments around which a file becomes durable: before an fsync, before and after a rename or an exchange
of names. `kill` ends the process by SIGKILL there; `full` lets the call fail as on a full disk. Where there are fewer events,
the command ends with its own exit code, after a line `events: COUNT`.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sprintnet.cli.main import main
from sprintnet.runs import io

KIND, MOMENT, WORDS = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
happened = 0


def event() -> None:
    """Counts an event; the one that was asked for is the fault."""
    global happened
    happened += 1
    if happened == MOMENT:
        if KIND == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(28, "No space left on device", "a file")


def around(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with an event before it and, where the fault is a kill, one after it."""

    def call(*arguments: Any, **options: Any) -> Any:
        event()
        result = function(*arguments, **options)
        if KIND == "kill":
            event()
        return result

    return call


os.fsync = around(os.fsync)
os.replace = around(os.replace)
io._exchange = around(io._exchange)  # type: ignore[attr-defined]
code = main(WORDS)
print(f"events: {happened}", file=sys.stderr)
sys.exit(code)
