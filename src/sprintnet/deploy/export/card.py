"""The model card of an export, in the format of the Hugging Face hub."""

import json
from collections.abc import Mapping
from typing import Any

from sprintnet.data.preprocessing import Preprocessing
from sprintnet.deploy.export.resizing import RESIZE_DESCRIPTIONS
from sprintnet.reporting.text.names import plain
from sprintnet.reporting.text.task_scores import accuracy_name, accuracy_with_interval, overall_scores


def model_card(preprocessing: Preprocessing, metadata: Mapping[str, str], table: Mapping[str, Any]) -> str:
    """Returns README.md of an export, from the metadata of its files and the table of export."""
    metrics: dict[str, Any] = json.loads(metadata["metrics"])
    height, width, channels = preprocessing.image_shape
    data, threshold = plain(metadata["data"]), metadata.get("threshold")
    others = "".join(f", {name} {text}" for name, text in overall_scores(metrics).items())
    scores = accuracy_with_interval(metrics) + others
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data, "split": metrics["split"]},
        "metrics": [{"type": "accuracy", "value": round(metrics["accuracy"], 4)}],
    }
    head = {
        "license": metadata["license"],
        "library_name": "sprintnet",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "image-classification"],
        "datasets": [data],
        "metrics": ["accuracy"],
        "model-index": [{"name": "sprintnet", "results": [result]}],
    }
    names = ", ".join(f"`{plain(name)}`" for name in preprocessing.classes)
    multi_label = f" An image may have several labels: every class with a probability above {threshold} is predicted."
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in head.items()),  # JSON is YAML, and quotes what a name contains
        "---",
        f"# An image classifier for {data}",
        "",
        f"{accuracy_name(metrics).capitalize()} on {metrics['images']:,} {metrics['split']} images: {scores}.",
        "",
        f"Classes ({len(preprocessing.classes)}): {names}.{multi_label if threshold else ''}",
        "",
        "Probabilities are not calibrated: no images were held out to fit a temperature."
        if preprocessing.temperature is None
        else "Probabilities are calibrated: a temperature was fitted on held-out images.",
        "",
        "## Use",
        "",
        f"The ONNX files take raw pixels, `images` uint8 (N, H, W, {channels}) of any size. The graph includes preprocessing: "
        f"images are {RESIZE_DESCRIPTIONS[preprocessing.resize]}; input size {width}x{height}; normalisation; "
        f"{'sigmoid' if threshold else 'softmax'}.",
        "",
        'Install SprintNet from a checkout of its source: `pip install ".[predict]"` (without PyTorch), or '
        '`pip install ".[train]"` for the weights in PyTorch.',
        "",
        "```python",
        "from sprintnet import Predictor",
        'Predictor("model.onnx")(["image.png"]).labels',
        "",
        "import sprintnet  # with PyTorch",
        f'sprintnet.load(".").predict_logits(images)  # uint8 (N, {height}, {width}, {channels})',
        "```",
        "",
        "## Files",
        "",
        "Each file is compared with the trained model on the same images. Speed was measured on "
        f"{table['hardware']['cpu']} with {table['hardware']['threads']} threads.",
        "",
        "| file | bytes | accuracy | equal predictions | largest difference of a probability | one image, ms | "
        "images/s, batch 256 |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['bytes']:,} | {row['accuracy']:.2%} | {row['agreement']:.2%} | {row['largest_difference']:.1e} "
            f"| {row['ms_1']:.2f} | {row['images_per_second_256']:,.0f} |"
            for name, row in table["files"].items()
        ),
        *(
            f"| {name} | - | - | - | - | {row['ms_1']:.2f} | {row['images_per_second_256']:,.0f} |"
            for name, row in table["pytorch"].items()
        ),
        "",
        f"Trained by SprintNet, commit `{metadata['commit']}`, on data with SHA-256 `{metadata['data_sha256']}`.",
        "The recipe is in the metadata of the ONNX files. `model.safetensors` contains the weights.",
        "",
    ]
    return "\n".join(lines)
