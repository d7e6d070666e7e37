"""The notebook: its text runs from start to end on the sample, and what is committed was made from that text."""

from pathlib import Path

import jupytext
from nbclient import NotebookClient

from conftest import SAMPLE, TINY
from sprintnet.config import load_config

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def test_the_notebook_runs_from_start_to_end(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(load_config("davidnet", TINY[2:]).to_toml())
    notebook = jupytext.read(NOTEBOOKS / "cifar10.py")
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = f"recipe = 'tiny.toml'\ndataset = own_images = {str(SAMPLE)!r}"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs" / "train" / "mine" / "report.html").is_file()
    kinds = [kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]
    assert kinds.count("image/png") == 8


def test_the_committed_notebook_is_the_text_with_its_outputs() -> None:
    text, shown = jupytext.read(NOTEBOOKS / "cifar10.py"), jupytext.read(NOTEBOOKS / "cifar10.ipynb")
    assert [(cell.cell_type, cell.source) for cell in shown.cells] == [(cell.cell_type, cell.source) for cell in text.cells]
    assert all(cell.execution_count for cell in shown.cells if cell.cell_type == "code")
    outputs = [output for cell in shown.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [place for place in ("/home/", "/root/", "/tmp/") if place in str(outputs)]
