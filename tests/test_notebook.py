"""The notebook: its text runs from start to end on the sample, and what is committed was made from that text."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

from conftest import TINY

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def test_the_notebook_runs_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE", "davidnet")
    monkeypatch.setenv("OVERRIDES", " ".join([*TINY, "data.val=0.2"]))
    notebook = jupytext.read(NOTEBOOKS / "cifar10.py")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs" / "train" / "davidnet-notebook" / "report.html").is_file()
    kinds = [kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]
    pictures = [kind for kind in kinds if kind.startswith("image/")]
    assert len(pictures) == 7


def test_the_committed_notebook_is_the_text_with_its_outputs() -> None:
    text, shown = jupytext.read(NOTEBOOKS / "cifar10.py"), jupytext.read(NOTEBOOKS / "cifar10.ipynb")
    assert [(cell.cell_type, cell.source) for cell in shown.cells] == [(cell.cell_type, cell.source) for cell in text.cells]
    assert all(cell.execution_count for cell in shown.cells if cell.cell_type == "code")
    assert not [output for cell in shown.cells for output in cell.get("outputs", ()) if output["output_type"] == "error"]
