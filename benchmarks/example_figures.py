"""Copies some figures of a run into docs/report, where the README shows them: lines as SVG, pictures as small JPEGs.

python benchmarks/example_figures.py runs/train/sprint94
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

from sprintnet.reporting.figures.style import OF_IMAGES, raster
from sprintnet.runs.folder import RunFolder

PLACE = Path(__file__).parents[1] / "docs" / "report"
SHOWN = ("results", "confusion_matrix_normalized", "reliability", "network", "wrong", "grad_cam")
WIDTH = 900


def main() -> None:
    """Copies each figure, for light pages and for dark ones."""
    plots = RunFolder(Path(sys.argv[1])).plots
    PLACE.mkdir(parents=True, exist_ok=True)
    for figure in SHOWN:
        for name in (figure, f"{figure}-dark"):
            if figure in OF_IMAGES:
                image = Image.open(raster(plots / name)).convert("RGB")
                image.thumbnail((WIDTH, 10 * WIDTH))
                image.save(PLACE / f"{name}.jpg", quality=85)
            else:
                shutil.copy(plots / f"{name}.svg", PLACE)


if __name__ == "__main__":
    main()
