"""Progress bars: shown on a terminal, silent elsewhere, and the items pass unchanged."""

import os
import subprocess
import sys
import termios

import nbformat
import pytest
from nbclient import NotebookClient

from sprintnet.progress import track, track_bytes

SCRIPT = """
from sprintnet.progress import track, track_bytes
assert list(track(iter("abc"), 5, "reading letters", done=2)) == ["a", "b", "c"]
assert list(track_bytes([b"ab", b"c"], 0, "a file")) == [b"ab", b"c"]
"""


def test_nothing_is_written_where_stderr_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), 3, "counting")) == [0, 1, 2]
    assert list(track_bytes([b"x"], 1, "a file")) == [b"x"]
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_what_is_done() -> None:
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (24, 80))
    subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], stderr=end, check=True)
    shown = os.read(terminal, 10_000).decode()
    os.close(end)
    os.close(terminal)
    assert "reading letters:" in shown
    assert "2/5" in shown
    assert "a file:" in shown


def test_a_notebook_without_ipywidgets_shows_a_text_bar_and_no_warning() -> None:
    without = "import sprintnet.progress\nsprintnet.progress.find_spec = lambda name: None\n"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(without + SCRIPT)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    shown = "".join(output.get("text", "") for output in notebook.cells[0].outputs)
    assert "reading letters:" in shown
    assert "Warning" not in shown
