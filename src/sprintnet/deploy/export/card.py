"""The model card of an export, in the format of the Hugging Face hub."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sprintnet.data.preprocessing import Preprocessing
from sprintnet.deploy.export.resizing import RESIZE_DESCRIPTIONS
from sprintnet.reporting.text.export import largest_batch, missed_precision
from sprintnet.reporting.text.names import plain
from sprintnet.reporting.text.task_scores import (
    FEW_IMAGES,
    accuracy_name,
    accuracy_with_interval,
    calibration_error,
    overall_scores,
    percent,
)


def _code(text: str) -> str:
    """Returns text as a code span of Markdown, whose fence is longer than any run of backticks in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def model_card(preprocessing: Preprocessing, metadata: Mapping[str, str], table: Mapping[str, Any]) -> str:
    """Returns README.md of an export, from the metadata of its files and the table of export."""
    metrics: dict[str, Any] = table["files"]["model.onnx"]["metrics"]
    environment = Environment(  # noqa: S701 (Markdown, not HTML)
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    # JSON is YAML, and quotes whatever a name contains
    environment.filters |= {"json": json.dumps, "plain": plain, "code": _code, "percent": percent, "number": "{:,.0f}".format}
    environment.filters["calibration_error"] = calibration_error
    height, width, channels = preprocessing.image_shape
    rows = metrics.get("sets", {"rows": []})["rows"]
    return environment.get_template("card.md.jinja").render(
        is_measured=metrics["images"] >= FEW_IMAGES,
        alarms=metrics.get("unknown", {"rows": []})["rows"],
        batch=largest_batch(table),
        sets=[row for row in rows if row["method"] == "threshold" and not row["by_class"]],
        data=plain(metadata["data"]),
        missed=missed_precision(metrics["thresholds"]) if "thresholds" in metrics else "",
        metric=accuracy_name(metrics).capitalize(),
        scores=", ".join([accuracy_with_interval(metrics), *(" ".join(score) for score in overall_scores(metrics).items())]),
        resize=RESIZE_DESCRIPTIONS[preprocessing.resize],
        **{"height": height, "width": width, "channels": channels, "threshold": preprocessing.threshold},
        **{"preprocessing": preprocessing, "metadata": metadata, "metrics": metrics, "table": table},
    )
