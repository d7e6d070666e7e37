"""The model card of an exported folder, in the form that the Hugging Face hub reads."""

import json
from collections.abc import Mapping
from typing import Any

from sprintnet.reporting.text.names import plain
from sprintnet.reporting.text.task_scores import accuracy_with_interval, overall_scores, task_scores


def model_card(facts: Mapping[str, str], table: Mapping[str, Any]) -> str:
    """Returns README.md of an exported folder, from the files' metadata and the table of export."""
    classes: list[str] = json.loads(facts["classes"])
    preprocessing, metrics = json.loads(facts["preprocessing"]), json.loads(facts["metrics"])
    height, width, channels = preprocessing["image_shape"]
    data, accuracy = plain(facts["data"]), metrics["accuracy"]
    scores, others, threshold = task_scores(metrics), overall_scores(metrics), facts.get("threshold")
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data, "split": metrics["split"]},
        "metrics": [{"type": "accuracy", "value": round(accuracy, 4)}],
    }
    head = {
        "license": facts["license"],
        "library_name": "sprintnet",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "image-classification"],
        "datasets": [data],
        "metrics": ["accuracy"],
        "model-index": [{"name": "sprintnet", "results": [result]}],
    }
    calibrated = preprocessing["temperature"] is not None
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in head.items()),  # JSON is YAML, and quotes whatever a name holds
        "---",
        f"# An image classifier for {data}",
        "",
        f"{scores.accuracy.capitalize()} on {metrics['images']:,} {metrics['split']} images: {accuracy_with_interval(metrics)}"
        + "".join(f", {name} {text}" for name, text in others.items())
        + ".",
        f"Classes ({len(classes)}): {', '.join(f'`{plain(name)}`' for name in classes)}.",
        *([f"An image may have any number of them: its labels are those likelier than {threshold}."] if threshold else []),
        "",
        "Probabilities are calibrated: a temperature was fitted on held-out images."
        if calibrated
        else "Probabilities are as trained: no images were held out to calibrate them on.",
        "",
        "## Use",
        "",
        f"The ONNX files take raw pixels, `images` uint8 (N, H, W, {channels}) of any size, and do the rest themselves: "
        f"{preprocessing['resize']}, {width}x{height}; normalisation; {'sigmoid' if threshold else 'softmax'}.",
        "",
        "```python",
        "from sprintnet import Predictor                  # pip install sprintnet[predict]; no PyTorch",
        'Predictor("model.onnx")(["picture.png"]).labels',
        "",
        "import sprintnet                                # pip install sprintnet[train]",
        f'sprintnet.load(".").predict_logits(pixels)              # logits; uint8 (N, {height}, {width}, {channels})',
        "```",
        "",
        "## Files, and how they answer beside the trained network",
        "",
        "| file | bytes | accuracy | same answer | largest difference of a probability | one image, ms | images/s by 256 |",
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
        f"Trained by SprintNet, commit `{facts['commit']}`, on data with SHA-256 `{facts['data_sha256']}`.",
        "The recipe is in the metadata of the ONNX files. `model.safetensors` holds the weights.",
        "",
    ]
    return "\n".join(lines)
