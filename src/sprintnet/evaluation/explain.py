"""Why a trained network answers as it does: Grad-CAM maps of chosen images, how faithful they are, kept for drawing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sprintnet.data.dataset import ImageDataset, Images, Labels, label_text
from sprintnet.data.images import read_image
from sprintnet.data.loader import Loader
from sprintnet.errors import SettingsError
from sprintnet.evaluation.gradcam import class_maps, faithfulness, recorded
from sprintnet.evaluation.metrics import Ints
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.runs.folder import RunFolder, read_arrays
from sprintnet.runs.io import write_arrays

BATCH = 100
RANDOM_MAPS = 8
PREDICTED, TRUE = "predicted", "true"

Faithfulness = dict[str, dict[str, float]]
"""Deletion and insertion of each kind of map, by its label; empty where there was nothing to explain."""


def explain_wrong(
    run: RunFolder, trained: TrainedModel, count: int = 16, about: str = PREDICTED, layer: str = ""
) -> Faithfulness:
    """Explains the run's `count` surest wrong answers and keeps their maps in the run's explanations.npz; see `explain`."""
    artifacts = read_arrays(run.artifacts)
    images, labels = artifacts["error_images"][:count], artifacts["error_labels"][:count]
    return explain(run.explanations, trained, images, labels, about, layer) if len(images) else {}


def explain_files(
    run: RunFolder, trained: TrainedModel, files: Sequence[str], about: str = PREDICTED, layer: str = ""
) -> Faithfulness:
    """Explains image files and keeps their maps in the run's file_explanations.npz; see `explain`.

    Pictures of another size are brought to the network's as its training images were. Raises DataError for a file that is no
    image.
    """
    height, width, channels = trained.preprocessing.image_shape
    images = [
        read_image(Path(file), channels=channels, size=(height, width), policy=trained.preprocessing.resize) for file in files
    ]
    return explain(run.file_explanations, trained, np.stack(images), None, about, layer, files)


def explain(
    place: Path,
    trained: TrainedModel,
    images: Images,
    labels: Labels | None,
    about: str = PREDICTED,
    layer: str = "",
    files: Sequence[str] | None = None,
) -> Faithfulness:
    """Returns, for each map, how faithful it is, and keeps images and maps in the archive `place` (images, facts, `map NAME`).

    Images are uint8 (N, H, W, C), of the size that the network was trained on; labels in the task's form, None where nobody
    knows them. The maps, float16 (N, H, W) in 0..1, are of the named layer, or else of the network's last feature layer and of
    the mean over all of them; `about` is `predicted` (of several labels the likeliest that is wrong, or else of all), `true`
    (of several the likeliest) or a class. Figures by map: deletion and insertion (means of the class's probability, 0..1), and
    the same of random maps. Raises SettingsError for an unknown class or layer.
    """
    pixels = _normalised(trained, images)
    layers = _layers(trained, layer, pixels[:1])
    with torch.no_grad():
        logits = torch.cat([trained.model(part).float() for part in _split(pixels)])
    classes = _classes(trained, logits, labels, about)
    maps = {
        name: torch.cat([class_maps(trained.model, part, chosen, members) for part, chosen in _split(pixels, classes)])
        for name, members in layers.items()
    }
    figures = {name: _faithfulness(trained, pixels, classes, values) for name, values in maps.items()}
    figures["random"] = _of_random_maps(trained, pixels, classes, next(iter(layers.values()))[0])
    task, found = trained.task, logits.cpu().numpy()
    unknown: list[str | None] = [None] * len(images)
    answers = [
        {"predicted": predicted, "confidence": confidence, "true": true, "asked": trained.classes[chosen], "file": file}
        for predicted, confidence, true, chosen, file in zip(
            label_text(task.predictions(found), trained.classes),
            task.confidence(found).tolist(),
            unknown if labels is None else label_text(labels, trained.classes),
            classes.tolist(),
            files or unknown,
            strict=True,
        )
    ]
    facts = json.dumps({"about": about, "answers": answers, "faithfulness": figures})
    arrays: dict[str, Any] = {f"map {name}": values.half().cpu().numpy() for name, values in maps.items()}
    write_arrays(place, images=images, facts=np.array(facts), **arrays)
    return figures


def _normalised(trained: TrainedModel, images: Images) -> Tensor:
    dataset = ImageDataset(images, np.zeros(len(images), np.int64), trained.classes)
    return Loader(dataset, trained.preprocessing.normalisation, BATCH, trained.runtime.device).first(len(images))


def _layers(trained: TrainedModel, layer: str, one_image: Tensor) -> dict[str, Sequence[str]]:
    """Returns, by label, the layers whose maps are averaged."""
    known: Sequence[str] = trained.model.feature_layers  # type: ignore[assignment]
    trained.model.eval()
    if not layer:
        return {known[-1]: [known[-1]], f"mean of {len(known)}": known}
    if layer in dict(trained.model.named_modules()):
        with recorded(trained.model, [layer]) as outputs, torch.no_grad():
            trained.model(one_image)
        if layer in outputs and outputs[layer].ndim == 4:
            return {layer: [layer]}
    raise SettingsError(f"--layer {layer}: this network has no map under that name; its feature layers are {', '.join(known)}")


def _classes(trained: TrainedModel, logits: Tensor, labels: Labels | None, about: str) -> Tensor:
    """Returns the class (N,) asked about for each image."""

    def members(labels: Labels | Ints) -> Tensor:
        return torch.from_numpy(trained.task.membership(labels, len(trained.classes))).to(logits.device)

    if about == PREDICTED:
        said = members(trained.task.predictions(logits.cpu().numpy()))
        return _likeliest(logits, said if labels is None else said & ~members(labels))
    if about == TRUE:
        if labels is None:
            raise SettingsError("--about true: images from files have no true class; ask about predicted, or name a class")
        return _likeliest(logits, members(labels))
    if about not in trained.classes:
        raise SettingsError(f"--about {about}: not predicted, true or one of {', '.join(trained.classes)}")
    return torch.full((len(logits),), trained.classes.index(about), device=logits.device)


def _likeliest(logits: Tensor, among: Tensor) -> Tensor:
    """Returns the class (N,) of the largest logit among those marked (N, K), or of all where none is."""
    return torch.where(among | ~among.any(1, keepdim=True), logits, -torch.inf).argmax(1)


def _faithfulness(trained: TrainedModel, pixels: Tensor, classes: Tensor, maps: Tensor) -> dict[str, float]:
    parts = [
        (len(part), faithfulness(trained.model, trained.task.activate, part, *rest))
        for part, *rest in _split(pixels, classes, maps)
    ]
    deletion, insertion = (sum(count * scores[i] for count, scores in parts) / len(pixels) for i in (0, 1))
    return {"deletion": deletion, "insertion": insertion}


def _of_random_maps(trained: TrainedModel, pixels: Tensor, classes: Tensor, layer: str) -> dict[str, float]:
    """Returns the mean figures of maps of noise, as coarse as the layer's: that of single pixels would hide everything."""
    with recorded(trained.model, [layer]) as outputs, torch.no_grad():
        trained.model(pixels[:1])
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(RANDOM_MAPS):
        coarse = torch.rand(len(pixels), 1, *outputs[layer].shape[2:], generator=generator).to(pixels.device)
        noise = F.interpolate(coarse, size=pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        found.append(_faithfulness(trained, pixels, classes, noise))
    return {key: sum(scores[key] for scores in found) / RANDOM_MAPS for key in found[0]}


def _split(*tensors: Tensor) -> Any:
    """Returns batches: tensors, or tuples of them where several are given."""
    parts = [tensor.split(BATCH) for tensor in tensors]  # type: ignore[no-untyped-call]
    return parts[0] if len(parts) == 1 else zip(*parts, strict=True)
