"""Copies some figures of a run into docs/figures/report, for docs/tutorials/report.md: curves as SVG, images as small JPEGs.

python benchmarks/example_figures.py runs/train/sprint94
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

from sprintnet.reporting.html.page import IMAGE_FIGURES
from sprintnet.runs.folder import RunFolder

FOLDER = Path(__file__).parents[1] / "docs" / "figures" / "report"
FIGURES = ("results", "confusion_matrix_normalized", "reliability", "network", "errors", "grad_cam")
WIDTH = 900


def main() -> None:
    """Copies each figure, in both themes."""
    plots = RunFolder(Path(sys.argv[1])).plots
    FOLDER.mkdir(parents=True, exist_ok=True)
    for figure in FIGURES:
        for name in (figure, f"{figure}-dark"):
            if figure in IMAGE_FIGURES:
                image = Image.open(plots / f"{name}.png").convert("RGB")
                image.thumbnail((WIDTH, 10 * WIDTH))
                image.save(FOLDER / f"{name}.jpg", quality=85)
            else:
                shutil.copy(plots / f"{name}.svg", FOLDER)


if __name__ == "__main__":
    main()
