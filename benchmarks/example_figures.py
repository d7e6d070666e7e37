"""Copies some figures of a run into docs/figures/report: curves as SVG, images as small JPEGs; draws the README's picture.

python benchmarks/example_figures.py runs/train/sprint94
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image

from sprintnet.reporting.figures.run_figures import IMAGE_FIGURES
from sprintnet.runs.folder import RunFolder

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "figures" / "report"
FIGURES = ("results", "confusion_matrix_normalized", "reliability", "network", "errors", "grad_cam")
WIDTH = 900
PICTURE = ROOT / "docs" / "figures" / "report.png"
PAGE_WIDTH, SCALE, PICTURE_WIDTH = 800, 1.5, 1600


def picture(page: Path) -> None:
    """Draws the README's picture of a report, in both themes: the counts of errors, and wrong predictions on their right."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for theme, place in (("light", PICTURE), ("dark", PICTURE.with_stem("report-dark"))):
            context = browser.new_context(
                viewport={"width": PAGE_WIDTH, "height": 800}, color_scheme=theme, device_scale_factor=SCALE
            )
            visited = context.new_page()
            visited.goto(page.resolve().as_uri())
            whole = Image.open(io.BytesIO(visited.screenshot(full_page=True))).convert("RGB")
            edges = "[document.querySelector('#errors h2').offsetTop, document.querySelector('#errors h3').offsetTop]"
            top, bottom = (round(SCALE * (edge - 10)) for edge in visited.evaluate(edges))
            height = round(SCALE * visited.evaluate("document.querySelector('#errors .confusion').offsetHeight + 160"))
            parts = [whole.crop((0, edge, whole.width, edge + height)) for edge in (top, bottom)]
            joined = Image.new("RGB", (2 * whole.width, height))
            for number, part in enumerate(parts):
                joined.paste(part, (number * whole.width, 0))
            joined.resize((PICTURE_WIDTH, height * PICTURE_WIDTH // joined.width), Image.Resampling.LANCZOS).save(
                place, optimize=True
            )
        browser.close()


def main() -> None:
    """Copies each figure, in both themes, and draws the picture."""
    picture(RunFolder(Path(sys.argv[1])).report)
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
