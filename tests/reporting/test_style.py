"""Figures keep their style wherever they are rendered, and Jupyter shows them."""

import io
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
from matplotlib import rcParams
from nbclient import NotebookClient
from PIL import Image

from sprintnet.reporting.figures.curves import lr_sweeps
from sprintnet.reporting.figures.style import save

SWEEP = {"seed": 3, "rates": [1e-3, 1e-2, 1e-1], "smoothed": [2.0, 1.5, 1.0], "suggestions": {"valley": 1e-2}}


def test_a_figure_has_its_style_outside_save_too(tmp_path: Path) -> None:
    before = dict(rcParams)
    saved, data = save(partial(lr_sweeps, [SWEEP]), tmp_path / "plot"), io.BytesIO()
    lr_sweeps([SWEEP]).savefig(data, format="png")
    with Image.open(saved) as expected, Image.open(data) as found:
        assert np.array_equal(np.asarray(expected), np.asarray(found))
    with Image.open(tmp_path / "plot-dark.png") as dark:
        assert dark.convert("RGB").getpixel((0, 0)) == (0x16, 0x18, 0x1D)
    assert dict(rcParams) == before


def test_jupyter_shows_a_figure_once_with_and_without_pyplot() -> None:
    cell = f"from sprintnet.reporting.figures.curves import lr_sweeps\nlr_sweeps([{SWEEP!r}])"
    cells = [cell, f"%matplotlib inline\nimport matplotlib.pyplot\n{cell}"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=120).execute()
    for cell in notebook.cells:
        (output,) = cell.outputs
        assert set(output.data) == {"image/png", "text/plain"}
    assert notebook.cells[0].outputs[0].metadata["image/png"]["width"] == round(96 * 6.4)
