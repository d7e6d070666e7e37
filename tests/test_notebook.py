"""The notebooks: each runs from start to end on the sample, and what is committed was made from its text."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

from conftest import SAMPLE, TINY
from sprintnet.config import load_config

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
PARAMETERS = {
    "cifar10": f"recipe = 'tiny.toml'\ndataset = own_images = {str(SAMPLE)!r}",
    "comparison": f"recipe = 'tiny.toml'\ndataset = {str(SAMPLE)!r}\nseeds = 2\nchange = {{'label_smoothing': 0.0}}",
    "davidnet": f"recipe = 'tiny.toml'\nquantize = None\ndataset = {str(SAMPLE)!r}",
    "photos": f"images = {str(SAMPLE)!r}\nsettings = {{'model__enlarge_to': 0}}",
}
FIGURES = {"cifar10": 8, "comparison": 1, "davidnet": 9, "photos": 4}


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_from_start_to_end(tmp_path: Path, name: str) -> None:
    (tmp_path / "tiny.toml").write_text(load_config("davidnet", TINY[2:]).to_toml())
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = PARAMETERS[name]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]
    assert kinds.count("image/png") == FIGURES[name]
    assert name != "cifar10" or (tmp_path / "runs" / "train" / "mine" / "report.html").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_notebook_is_the_text_with_its_outputs(name: str) -> None:
    text, shown = jupytext.read(NOTEBOOKS / f"{name}.py"), jupytext.read(NOTEBOOKS / f"{name}.ipynb")
    assert [(cell.cell_type, cell.source) for cell in shown.cells] == [(cell.cell_type, cell.source) for cell in text.cells]
    assert all(cell.execution_count for cell in shown.cells if cell.cell_type == "code")
    outputs = [output for cell in shown.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [place for place in ("/home/", "/root/", "/tmp/", str(NOTEBOOKS)) if place in str(outputs)]
