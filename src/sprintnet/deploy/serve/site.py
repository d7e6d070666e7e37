"""The page for a model, with or without a server: its files and the description of the model."""

from pathlib import Path
from typing import Any

from sprintnet.data.conformal import images_needed
from sprintnet.deploy.predictor import Predictor
from sprintnet.evaluation.held_out import COVERAGES, FALSE_ALARMS
from sprintnet.runs.folder import RunFolder

PAGE = Path(__file__).parent / "page"
SHARED = ("index.html", "style.css", "page.js")
BACKEND = "backend.js"  # the page imports server.js or browser.js under this name
PUBLIC_FIELDS = ("made_by", "preprocessing", "metrics", "commit", "data_sha256", "license")
"""Metadata to publish; the rest may name folders of the machine that trained."""


def describe(predictor: Predictor) -> dict[str, Any]:
    """Returns the public description of a model: metadata, outputs, size, samples, report."""
    held_out = predictor.preprocessing.held_out_scores
    novelty = len(predictor.preprocessing.novelty_scores) if "novelty" in predictor.outputs else 0
    return {
        "model": predictor.path.name,
        "bytes": predictor.path.stat().st_size,
        "outputs": list(predictor.outputs),
        "threshold": predictor.preprocessing.threshold,
        "coverages": [coverage for coverage in COVERAGES if held_out and images_needed(coverage) <= held_out.images],
        "false_alarms": next((rate for rate in FALSE_ALARMS if novelty and images_needed(1 - rate) <= novelty), None),
        **{name: predictor.metadata[name] for name in PUBLIC_FIELDS if name in predictor.metadata},
        "samples": [f"samples/{file.name}" for file in find_samples(predictor.path)],
        "report": "report.html" if find_report(predictor.path) else None,
    }


def find_samples(model: Path) -> list[Path]:
    """Returns the sample images of a model."""
    return sorted((model.parent / "samples").glob("*.png"))


def find_report(model: Path) -> Path | None:
    """Returns the report of the run that a model was exported from, if it exists."""
    run = RunFolder(model.absolute().parent.parent)
    is_run = model.absolute().parent == run.export and run.config.is_file()
    return run.report if is_run and run.report.is_file() else None
