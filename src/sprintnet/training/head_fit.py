"""The last layer of a pretrained network, fitted to embeddings: logistic regression, its penalty chosen by cross-validation."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sprintnet.config import Config
from sprintnet.data.dataset import ImageDataset, class_weights, digest
from sprintnet.data.loader import Loader
from sprintnet.data.splits import stratified_k_fold
from sprintnet.evaluation.predict import evaluating
from sprintnet.evaluation.task import Evaluation, Task, task_of
from sprintnet.models.base import LinearNetwork
from sprintnet.progress import announce
from sprintnet.reporting.text.times import seconds_text
from sprintnet.runs.environment import cpu_name, environment_record
from sprintnet.runs.folder import RunFolder
from sprintnet.runs.io import cache_folder, limit_cache, write_arrays, write_json
from sprintnet.runtime import Runtime
from sprintnet.training.losses import LOSSES

STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(0, -13, -1))
"""Strengths of the penalty, from strong to weak, for embeddings with a mean variance of 1."""
FOLDS = 5
MAX_FOR_ALL_FOLDS = 2000
"""Training images up to which all folds are validated in turn; with more, one of them."""
PATIENCE = 2
"""Weaker penalties that are tried after the loss of validation has begun to rise."""
ITERATIONS, TOLERANCE = 200, 1e-3  # the latter of the largest component of the gradient
CACHE_BYTES = 2**30  # of embeddings: about 100,000 images and their mirror images
MAX_FOR_ONE_THREAD = 2**22
"""Embeddings, in numbers, up to which one thread is faster: SciPy's threads and PyTorch's wait for each other's cores."""
Track = Callable[[Iterable[Any], int, str, int, int], Iterable[Any]]


class Validation(NamedTuple):
    """Cross-validation of STRENGTHS, from the strongest on."""

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    chosen: int
    """The number of the penalty with the least loss."""
    predictions: Evaluation
    """Of training images, by layers of that penalty that were fitted without them: logits, labels and index."""


class Embeddings(NamedTuple):
    """Embeddings (V, N, C) of images, and of their mirror images, scaled to a mean variance of 1, and targets."""

    values: Tensor
    targets: Tensor
    scale: float
    """What the network's embeddings were divided by."""
    centre: Tensor
    """What was subtracted before (C,)."""


@dataclass(frozen=True)
class HeadFit:
    """How the last layer was fitted; `losses` and `accuracies` are those of cross-validation, for each of `strengths`."""

    strength: float
    strengths: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    mirrored: bool
    """Whether mirror images were embedded too."""
    embedding_seconds: float
    fit_seconds: float


@dataclass(frozen=True)
class Objective:
    """The loss of a linear layer on embeddings, with a penalty on its weights (not its biases)."""

    task: Task
    label_smoothing: float
    class_weights: Tensor | None

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean loss over images."""
        return LOSSES[self.task.name](logits, targets, self.label_smoothing, self.class_weights)

    def minimised(self, inputs: Tensor, targets: Tensor, strength: float, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the weights and biases (K, C + 1) that minimise loss + strength / 2 * |weights|^2, by L-BFGS from `start`."""
        from scipy.optimize import minimize  # not above: an extra, and slow to load

        def value(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            layer = torch.from_numpy(flat.reshape(start.shape)).float()
            weight, bias = layer[:, :-1], layer[:, -1]
            logits = (inputs @ weight.T + bias).requires_grad_()
            loss = self.loss(logits, targets)
            (slope,) = torch.autograd.grad(loss, logits)  # the rest by hand: autograd's transposed product is ten times as slow
            gradient = torch.cat([slope.T @ inputs + strength * weight, slope.sum(0)[:, None]], 1)
            penalised = loss.item() + strength / 2 * float(weight.square().sum())
            return penalised, gradient.double().numpy().ravel()

        options = {"maxiter": ITERATIONS, "gtol": TOLERANCE}
        with _single_thread(inputs.numel() <= MAX_FOR_ONE_THREAD):
            found = minimize(value, start.ravel(), jac=True, method="L-BFGS-B", options=options)  # type: ignore[call-overload]
        layer: NDArray[np.float64] = found.x.reshape(start.shape)
        return layer


@contextmanager
def _single_thread(is_single: bool) -> Iterator[None]:
    """Limits PyTorch to one thread while the context is open, if asked."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if is_single else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fit_head(
    network: LinearNetwork,
    loader: Loader,
    images: ImageDataset,
    config: Config,
    runtime: Runtime,
    run: RunFolder,
    track: Track,
    *,
    is_replay: bool = False,
) -> tuple[Evaluation, float]:
    """Sets the last layer of a network to logistic regression on embeddings of training images.

    Returns predictions of training images in cross-validation, and the seconds that all took. The strength of the penalty is
    the one with the least loss there: the held-out images stay unseen. Writes head_fit.json.
    """
    started = time.monotonic()
    embeddings = embed(network, loader, images, config, runtime, track, run.log, is_replay=is_replay)
    embedded = time.monotonic()
    balanced = "balanced" in (config.class_weights, config.sampling)
    weights = torch.from_numpy(class_weights(images.labels, len(images.classes))) if balanced else None
    objective = Objective(task_of(images), config.label_smoothing, weights)
    found = cross_validate(objective, embeddings, images.labels, len(images.classes), images.groups)
    chosen = found.chosen
    weight, bias = fitted_layer(objective, embeddings, len(images.classes), chosen)
    with torch.no_grad():
        network.linear.weight.copy_(weight / network.logit_scale)
        network.linear.bias.copy_(bias / network.logit_scale)
    is_mirrored = len(embeddings.values) > 1
    fit = HeadFit(
        STRENGTHS[chosen], STRENGTHS[: len(found.losses)], found.losses, found.accuracies, is_mirrored,
        embedded - started, time.monotonic() - embedded,
    )  # fmt: skip
    write_json(run.head_fit, asdict(fit))
    run.log(
        f"head: fitted to embeddings of {len(images):,} images{' and their mirror images' * is_mirrored}, "
        f"penalty {fit.strength:.2g}: {found.accuracies[chosen]:.2%} in cross-validation "
        f"({seconds_text(time.monotonic() - started)})"
    )
    return found.predictions, time.monotonic() - started


def embed(
    network: LinearNetwork,
    loader: Loader,
    images: ImageDataset,
    config: Config,
    runtime: Runtime,
    track: Track,
    log: Callable[[str], object] = lambda line: None,
    *,
    is_replay: bool = False,
) -> Embeddings:
    """Returns the embeddings of training images, and where training mirrors images, of their mirror images.

    Each pass over the images is cached by what it depends on, so that a run that was interrupted, or another on the same
    images, does not repeat it; a replay does. The cache keeps the last CACHE_BYTES. Of the augmentations that were tried on 50
    to 600 images, mirror images alone helped.
    """
    state = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if not name.startswith(("linear.", "novelty.")):
            state.update(tensor.cpu().contiguous().numpy().data)
    conditions = [runtime.describe(), environment_record()["code_sha256"], torch.__version__, cpu_name()]
    shared = [digest(images), loader.normalisation, state.hexdigest(), network.working_shape(images.image_shape), conditions]
    passes = []
    for is_mirrored in (False, True)[: 2 if config.augment.flip else 1]:
        key = hashlib.sha256(json.dumps([*shared, is_mirrored]).encode()).hexdigest()
        file = cache_folder() / "embeddings" / f"{key}.npz"
        if is_replay or not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_arrays(file, embeddings=_one_pass(network, loader, runtime, track, log, is_mirrored=is_mirrored))
        with suppress(OSError):  # of another user
            os.utime(file)  # it is in use: no process removes it now
        with np.load(file) as saved:
            passes.append(torch.from_numpy(saved["embeddings"]))
    limit_cache(file.parent, CACHE_BYTES)
    return as_embeddings(torch.stack(passes), loader.targets(torch.arange(len(images))).cpu())


def as_embeddings(values: Tensor, targets: Tensor) -> Embeddings:
    """Returns a network's embeddings (V, N, C) of images, scaled for the fit."""
    centre = values.mean((0, 1))
    centred = values - centre
    scale = float(centred.square().mean().sqrt().clamp(min=1e-6))
    return Embeddings(centred / scale, targets, scale, centre)


@torch.inference_mode()
def _one_pass(
    network: LinearNetwork, loader: Loader, runtime: Runtime, track: Track, log: Callable[[str], object], *, is_mirrored: bool
) -> NDArray[np.float32]:
    label = "embedding mirror images" if is_mirrored else "embedding"
    found: list[Tensor] = []
    started = time.monotonic()
    with evaluating(network), runtime.autocast():
        for images, _ in track(loader.sequential(), len(loader), label, 0, loader.batch_size):
            viewed = images.flip(-1).contiguous(memory_format=torch.channels_last) if is_mirrored else images
            found.append(network.embed(network.features(viewed)).float())
            if len(found) == 1:
                announce(f"{label} {len(loader.labels):,} images", (time.monotonic() - started) * len(loader), log)
    embeddings: NDArray[np.float32] = torch.cat(found).cpu().numpy()
    return embeddings


def cross_validate(
    objective: Objective, embeddings: Embeddings, labels: NDArray[Any], classes: int, groups: Sequence[str] | None = None
) -> Validation:
    """Returns how penalties fare on held-out folds of the training images, up to PATIENCE weaker ones than the best. Views of
    an image, and images of a group, are in one fold."""
    count = len(labels)
    stratified = stratified_k_fold(labels, FOLDS, groups)
    if len(np.unique(stratified)) == 1:  # classes of an image or two, which all come into one fold
        stratified = np.unique(np.arange(count) if groups is None else np.array(groups), return_inverse=True)[1] % FOLDS
    fold_of, folds = torch.from_numpy(stratified), np.unique(stratified).tolist()
    if count > MAX_FOR_ALL_FOLDS:
        folds = folds[:1]
    validated = torch.cat([torch.nonzero(fold_of == fold)[:, 0] for fold in folds])
    targets = embeddings.targets[validated]
    layers: list[NDArray[np.float64] | None] = [None] * FOLDS
    losses: list[float] = []
    accuracies: list[float] = []
    best = torch.zeros(0)
    for strength in STRENGTHS:
        parts = []
        for fold in folds:
            layer = _fitted(objective, embeddings, torch.nonzero(fold_of != fold)[:, 0], classes, strength, layers[fold])
            layers[fold], weights = layer, torch.from_numpy(layer).float()
            parts.append(embeddings.values[0, fold_of == fold] @ weights[:, :-1].T + weights[:, -1])
        logits = torch.cat(parts)
        loss = objective.loss(logits, targets).item()
        if losses and loss == losses[-1]:
            break  # few images that are told apart: to TOLERANCE, the layers of the penalty before are also those of this one
        losses.append(loss)
        accuracies.append(float(objective.task.correct(logits, targets).float().mean()))
        chosen = int(np.argmin(losses))
        if chosen == len(losses) - 1:
            best = logits
        elif len(losses) - 1 - chosen >= PATIENCE:
            break
    index = validated.numpy()
    predictions = Evaluation({"logits": best.numpy(), "labels": labels[index], "index": index})
    return Validation(tuple(losses), tuple(accuracies), chosen, predictions)


def fitted_layer(objective: Objective, embeddings: Embeddings, classes: int, chosen: int) -> tuple[Tensor, Tensor]:
    """Returns weights (K, C) and biases (K,), for the network's own embeddings, of the penalty STRENGTHS[chosen]."""
    layer = None
    for strength in STRENGTHS[: chosen + 1]:  # each fit begins at the one before
        layer = _fitted(objective, embeddings, slice(None), classes, strength, layer)
    assert layer is not None
    weight = torch.from_numpy(layer[:, :-1]).float() / embeddings.scale
    return weight, torch.from_numpy(layer[:, -1]).float() - weight @ embeddings.centre


def _fitted(
    objective: Objective, embeddings: Embeddings, rows: Any, classes: int, strength: float, start: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    inputs, targets = embeddings.values[:, rows], embeddings.targets[rows]
    views = len(inputs)
    if start is None:
        start = np.zeros((classes, inputs.shape[2] + 1))
    return objective.minimised(inputs.flatten(0, 1), targets.repeat(views, *[1] * (targets.ndim - 1)), strength, start)
