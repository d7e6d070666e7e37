"""Progress bars: shown on a terminal, silent elsewhere, and the items pass unchanged."""

import os
import re
import subprocess
import sys
import termios
import threading

import nbformat
import pytest
from nbclient import NotebookClient

from sprintnet.progress import SAID_SECONDS, announce, track, track_bytes

SCRIPT = """
from sprintnet.progress import track, track_bytes
assert list(track(iter("abc"), 5, "reading letters", done=2)) == ["a", "b", "c"]
assert list(track_bytes([b"ab", b"c"], 0, "a file")) == [b"ab", b"c"]
"""


def test_nothing_is_written_where_stderr_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), 3, "counting")) == [0, 1, 2]
    assert list(track_bytes([b"x"], 1, "a file")) == [b"x"]
    assert capfd.readouterr() == ("", "")


def on_a_terminal(script: str, columns: int = 80, **environment: str) -> str:
    """Returns what a script writes to a terminal of 24 lines, of both streams."""
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (24, columns))
    environment = {**os.environ, "TERM": "xterm", **environment}
    subprocess.run([sys.executable, "-W", "error", "-c", script], stdout=end, stderr=end, env=environment, check=True)
    os.set_blocking(terminal, False)
    try:
        return os.read(terminal, 100_000).decode()
    except BlockingIOError:  # nothing was written
        return ""
    finally:
        os.close(end)
        os.close(terminal)


def test_a_terminal_shows_what_is_done() -> None:
    shown = on_a_terminal(SCRIPT)
    assert "reading letters:" in shown
    assert "2/5" in shown
    assert "a file:" in shown


def test_the_rate_is_in_images_and_lines_are_printed_above_the_bar() -> None:
    script = """
import time
from sprintnet.progress import say, track
for number in track(range(3), 3, "training", images=512):
    time.sleep(0.11)  # tqdm draws ten times a second
    if number == 1:
        say("a message")
"""
    shown = on_a_terminal(script)
    assert re.search(r"training: .* 2/3 \[00:00<00:00, [\d,]+ images/s\]", shown)
    assert re.search(r"\r *\r?a message\r\n", shown)  # the bar is erased before


def test_a_dumb_terminal_shows_no_bar() -> None:
    assert on_a_terminal(SCRIPT, TERM="dumb") == ""


def test_a_bar_is_no_wider_than_its_terminal() -> None:
    script = "from sprintnet.progress import track\nlist(track(range(3), 3, 'a long label of a training', images=512))"
    assert max(map(len, re.split(r"[\r\n]+", on_a_terminal(script, columns=40)))) <= 40


def test_a_notebook_without_ipywidgets_shows_a_text_bar_and_no_warning() -> None:
    without = "import sprintnet.progress\nsprintnet.progress.find_spec = lambda name: None\n"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(without + SCRIPT)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    shown = "".join(output.get("text", "") for output in notebook.cells[0].outputs)
    assert "reading letters:" in shown
    assert "Warning" not in shown


def test_bars_leave_no_threads_behind() -> None:
    list(track(range(2), 2, "first", images=8))
    before = threading.active_count()
    for _ in range(20):
        list(track(range(2), 2, "another", images=8))
    assert threading.active_count() <= before


def test_what_takes_long_is_said_before_on_stderr_or_by_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    announce("reading", SAID_SECONDS)
    announce("decoding", 150)
    announce("embedding", 7200, said.append)
    assert capfd.readouterr() == ("", "decoding: about 2 min\n")
    assert said == ["embedding: about 2.0 h"]
