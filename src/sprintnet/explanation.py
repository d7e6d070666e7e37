"""Why a trained network answers as it does: Grad-CAM maps of chosen images, how faithful they are, kept for drawing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.data.dataset import ImageDataset, Images, Labels
from sprintnet.data.loader import Loader
from sprintnet.errors import SettingsError
from sprintnet.evaluation.gradcam import class_maps, faithfulness, recorded
from sprintnet.images import read_image
from sprintnet.run import RunFolder, read_arrays, write_arrays
from sprintnet.trained import TrainedModel

BATCH = 100
RANDOM_MAPS = 8
PREDICTED, TRUE = "predicted", "true"

Faithfulness = dict[str, dict[str, float]]
"""Deletion and insertion of each kind of map, by its label; empty where there was nothing to explain."""


def explain_wrong(
    run: RunFolder, trained: TrainedModel, count: int = 16, about: str = PREDICTED, layer: str = ""
) -> Faithfulness:
    """Explains the run's `count` surest wrong answers and keeps their maps in the run's explanations.npz; see `explain`."""
    evidence = read_arrays(run.evidence)
    images, labels = evidence["wrong_images"][:count], evidence["wrong_labels"][:count]
    return explain(run.explanations, trained, images, labels, about, layer) if len(images) else {}


def explain_files(
    run: RunFolder, trained: TrainedModel, files: Sequence[str], about: str = PREDICTED, layer: str = ""
) -> Faithfulness:
    """Explains image files and keeps their maps in the run's file_explanations.npz; see `explain`.

    Pictures of another size are brought to the network's as its training images were. Raises DataError for a file that is no
    image.
    """
    height, width, channels = trained.image_shape
    images = [read_image(Path(file), channels=channels, size=(height, width), policy=trained.resize) for file in files]
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

    Images are uint8 (N, H, W, C), of the size that the network was trained on; labels (N,), None where nobody knows them.
    The maps, float16 (N, H, W) in 0..1, are of the named layer, or else of the network's last feature layer and of the mean
    over all of them; `about` is `predicted`, `true` or a class. Figures by map: deletion and insertion (means of the class's
    probability, 0..1), and the same of random maps. Raises SettingsError for an unknown class or layer.
    """
    pixels = _normalised(trained, images)
    layers = _layers(trained, layer, pixels[:1])
    asked = _classes(trained, len(images), labels, about)
    with torch.no_grad():
        probabilities = torch.cat([trained.model(part).float().softmax(1) for part in _split(pixels)])
    classes = probabilities.argmax(1) if asked is None else asked.to(pixels.device)
    maps = {
        name: torch.cat([class_maps(trained.model, part, chosen, members) for part, chosen in _split(pixels, classes)])
        for name, members in layers.items()
    }
    figures = {name: _faithfulness(trained.model, pixels, classes, values) for name, values in maps.items()}
    figures["random"] = _of_random_maps(trained.model, pixels, classes, next(iter(layers.values()))[0])
    answers = []
    for index, (row, chosen) in enumerate(zip(probabilities.cpu(), classes.tolist(), strict=True)):
        answer = int(row.argmax())
        true = None if labels is None else trained.classes[labels[index]]
        found = {"predicted": trained.classes[answer], "confidence": float(row[answer]), "true": true}
        answers.append({**found, "asked": trained.classes[chosen], "file": files[index] if files else None})
    facts = json.dumps({"about": about, "answers": answers, "faithfulness": figures})
    arrays: dict[str, Any] = {f"map {name}": values.half().cpu().numpy() for name, values in maps.items()}
    write_arrays(place, images=images, facts=np.array(facts), **arrays)
    return figures


def _normalised(trained: TrainedModel, images: Images) -> Tensor:
    dataset = ImageDataset(images, np.zeros(len(images), np.int64), trained.classes)
    return Loader(dataset, trained.normalisation, BATCH, trained.context.device).first(len(images))


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


def _classes(trained: TrainedModel, count: int, labels: Labels | None, about: str) -> Tensor | None:
    """Returns the class asked about for each image, or None for the predicted one."""
    if about == PREDICTED:
        return None
    if about == TRUE:
        if labels is None:
            raise SettingsError("--about true: images from files have no true class; ask about predicted, or name a class")
        return torch.from_numpy(labels)
    if about not in trained.classes:
        raise SettingsError(f"--about {about}: not predicted, true or one of {', '.join(trained.classes)}")
    return torch.full((count,), trained.classes.index(about))


def _faithfulness(model: nn.Module, pixels: Tensor, classes: Tensor, maps: Tensor) -> dict[str, float]:
    parts = [(len(part), faithfulness(model, part, *rest)) for part, *rest in _split(pixels, classes, maps)]
    deletion, insertion = (sum(count * scores[i] for count, scores in parts) / len(pixels) for i in (0, 1))
    return {"deletion": deletion, "insertion": insertion}


def _of_random_maps(model: nn.Module, pixels: Tensor, classes: Tensor, layer: str) -> dict[str, float]:
    """Returns the mean figures of maps of noise, as coarse as the layer's: that of single pixels would hide everything."""
    with recorded(model, [layer]) as outputs, torch.no_grad():
        model(pixels[:1])
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(RANDOM_MAPS):
        coarse = torch.rand(len(pixels), 1, *outputs[layer].shape[2:], generator=generator).to(pixels.device)
        noise = F.interpolate(coarse, size=pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        found.append(_faithfulness(model, pixels, classes, noise))
    return {key: sum(scores[key] for scores in found) / RANDOM_MAPS for key in found[0]}


def _split(*tensors: Tensor) -> Any:
    """Returns batches: tensors, or tuples of them where several are given."""
    parts = [tensor.split(BATCH) for tensor in tensors]  # type: ignore[no-untyped-call]
    return parts[0] if len(parts) == 1 else zip(*parts, strict=True)
