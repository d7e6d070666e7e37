"""Explanations of predictions: class activation maps of images, with scores of their faithfulness."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.data.dataset import ImageDataset, Images, Labels, label_text
from sprintnet.data.images import read_image
from sprintnet.data.loader import Loader
from sprintnet.errors import ArgumentError
from sprintnet.evaluation.gradcam import FORWARD_PASSES, class_maps, faithfulness, recorded
from sprintnet.evaluation.metrics import Ints
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.progress import track
from sprintnet.runs.folder import RunFolder, read_arrays
from sprintnet.runs.io import write_arrays

RANDOM_MAPS, MIN_RANDOM_MAPS = 8, 2
SCORED_PIXELS = 2**24
"""Pixels that the scores of faithfulness may cost: of large images, few have them."""
PREDICTED, TRUE = "predicted", "true"


@dataclass(frozen=True)
class Explanation:
    """Class activation maps of images (N, H, W, C), the predictions, and the faithfulness of the maps."""

    images: Images
    maps: dict[str, npt.NDArray[np.float16]]  # (N, H, W) in 0..1, by the name of the layer
    predictions: list[dict[str, Any]]
    """For each image: predicted, confidence, true (None where unknown), target (the class of its maps), file or None."""
    faithfulness: dict[str, dict[str, float]]
    """`deletion` and `insertion` by the name of the layer, and of random maps; see `gradcam.faithfulness`."""
    scored: int
    """The number of images, the first, that have these scores: of large images, they take long."""
    target_class: str
    none_wrong: bool = False
    """Whether these are the least confident predictions of a run without a wrong one, instead of its errors."""

    def save(self, path: Path) -> None:
        """Writes the archive of the figure `grad_cam`: images, facts (JSON), `map NAME`."""
        facts = {key: getattr(self, key) for key in ("target_class", "predictions", "faithfulness", "scored", "none_wrong")}
        arrays: dict[str, Any] = {f"map {name}": values for name, values in self.maps.items()}
        write_arrays(path, images=self.images, facts=np.array(json.dumps(facts)), **arrays)


def explain_wrong(
    run: RunFolder, trained: TrainedModel, count: int = 16, target_class: str = PREDICTED, layer: str = ""
) -> Explanation | None:
    """Returns the explanation of the run's `count` most confident wrong predictions, where none is wrong of its least
    confident ones; None without either; see `explain`.

    It is saved as the run's explanations.npz.
    """
    artifacts = read_arrays(run.artifacts)
    kind = "error" if (any_wrong := len(artifacts["error_index"]) > 0) else "unsure"
    images, labels = (artifacts.get(f"{kind}_{part}", ())[:count] for part in ("images", "labels"))
    if not len(images):
        return None
    explanation = replace(explain(trained, images, labels, target_class, layer), none_wrong=not any_wrong)
    explanation.save(run.explanations)
    return explanation


def explain_files(
    run: RunFolder, trained: TrainedModel, files: Sequence[str], target_class: str = PREDICTED, layer: str = ""
) -> Explanation:
    """Returns the explanation of image files, resized as the training images were; see `explain`.

    It is saved as the run's file_explanations.npz. Raises DataError for a file that is not an image.
    """
    (height, width, channels), policy = trained.preprocessing.image_shape, trained.preprocessing.resize
    images = [read_image(Path(file), channels=channels, size=(height, width), policy=policy) for file in files]
    explanation = explain(trained, np.stack(images), None, target_class, layer, files)
    explanation.save(run.file_explanations)
    return explanation


def explain(
    trained: TrainedModel,
    images: Images,
    labels: Labels | None = None,
    target_class: str = PREDICTED,
    layer: str = "",
    files: Sequence[str] | None = None,
) -> Explanation:
    """Returns Grad-CAM maps of uint8 images (N, H, W, C) of the network's size, with their faithfulness.

    The maps are of the named layer; by default of the last feature layer, and the mean over all feature layers.
    `target_class` is `predicted` (multi-label: the most probable wrong label, or of all predicted ones), `true` (multi-label:
    the most probable) or a class. Labels are in the task's form. All images form one batch: use at most a few hundred.
    Raises SettingsError for an unknown class or layer.
    """
    dataset = ImageDataset(images, np.zeros(len(images), np.int64), trained.classes)
    pixels = Loader(dataset, trained.preprocessing.normalisation, len(images), trained.runtime.device).first(len(images))
    with trained.runtime.activated():
        layers = _layers(trained, layer, pixels[:1])
        with torch.no_grad():
            logits = trained.model(pixels).float()
        targets = _targets(trained, logits, labels, target_class)
        maps = {name: class_maps(trained.model, pixels, targets, members) for name, members in layers.items()}
        scored, random_maps = _scored(trained.model.working_shape(trained.preprocessing.image_shape), len(maps))
        score = partial(faithfulness, trained.model, trained.task.activate, pixels[:scored], targets[:scored])
        layer = next(iter(layers.values()))[0]
        noises = _random_maps(trained.model, pixels[:scored], layer, random_maps)
        every = chain((values[:scored] for values in maps.values()), noises)
        found = [score(each) for each in track(every, len(maps) + random_maps, "Grad-CAM: faithfulness")]
    scores, random = dict(zip(maps, found, strict=False)), found[len(maps) :]
    scores["random"] = {name: sum(each[name] for each in random) / len(random) for name in random[0]}
    unknown: list[str | None] = [None] * len(images)
    columns = {
        "predicted": label_text(trained.task.predictions(logits.cpu().numpy()), trained.classes),
        "confidence": trained.task.confidence(trained.preprocessing.calibrated(logits.cpu().numpy())).tolist(),
        "true": unknown if labels is None else label_text(labels, trained.classes),
        "target": [trained.classes[target] for target in targets.tolist()],
        "file": files or unknown,
    }
    predictions = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    arrays = {name: values.half().cpu().numpy() for name, values in maps.items()}
    return Explanation(images, arrays, predictions, scores, min(scored, len(images)), target_class)


def _layers(trained: TrainedModel, layer: str, image: Tensor) -> dict[str, Sequence[str]]:
    """Returns, by name, the layers whose maps are averaged."""
    model, known = trained.model.eval(), trained.model.feature_layers
    if not layer:
        every = [name for each in known for name in model.layers_named(each)]
        return {known[-1]: model.layers_named(known[-1]), f"mean of {len(known)} layers": every}
    names = model.layers_named(layer)
    if set(names) <= set(dict(model.named_modules())):
        with recorded(model, names) as outputs, torch.enable_grad():  # as for the maps
            model(image)
        if set(names) == set(outputs) and all(output.ndim == 4 for output in outputs.values()):
            return {layer: names}
    raise ArgumentError("layer", layer, f"has no feature maps; the feature layers are {', '.join(known)}")


def _targets(trained: TrainedModel, logits: Tensor, labels: Labels | None, target_class: str) -> Tensor:
    """Returns the class (N,) that each image's maps are of."""

    def membership(labels: Labels | Ints) -> Tensor:
        return torch.from_numpy(trained.task.membership(labels, len(trained.classes))).to(logits.device)

    if target_class == PREDICTED:
        predicted = membership(trained.task.predictions(logits.cpu().numpy()))
        return _most_probable(logits, predicted if labels is None else predicted & ~membership(labels))
    if target_class == TRUE:
        if labels is None:
            raise ArgumentError("target_class", TRUE, "the true classes are unknown; use predicted, or name a class")
        return _most_probable(logits, membership(labels))
    if target_class not in trained.classes:
        raise ArgumentError("target_class", target_class, f"must be predicted, true or one of {', '.join(trained.classes)}")
    return torch.full((len(logits),), trained.classes.index(target_class), device=logits.device)


def _most_probable(logits: Tensor, among: Tensor) -> Tensor:
    """Returns the class (N,) with the largest logit among those marked (N, K), or among all where none is."""
    return torch.where(among | ~among.any(1, keepdim=True), logits, -torch.inf).argmax(1)


def _scored(shape: tuple[int, int, int], maps: int) -> tuple[int, int]:
    """Returns how many images of a shape (H, W, C) have scores of faithfulness, and how many random maps they have."""
    area = shape[0] * shape[1]
    random_maps = max(MIN_RANDOM_MAPS, min(RANDOM_MAPS, RANDOM_MAPS * 64 * 64 // area))
    return max(1, SCORED_PIXELS // (area * FORWARD_PASSES * (maps + random_maps))), random_maps


def _random_maps(model: nn.Module, pixels: Tensor, layer: str, count: int) -> Iterator[Tensor]:
    """Yields random maps (N, H, W) as coarse as those of the layer; noise by pixel would hide every object at once."""
    with recorded(model, [layer]) as outputs, torch.no_grad():
        model(pixels[:1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        coarse = torch.rand(len(pixels), 1, *outputs[layer].shape[2:], generator=generator).to(pixels.device)
        yield F.interpolate(coarse, size=pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0]
