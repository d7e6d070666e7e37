"""Distillation: training towards the probabilities of a teacher, computed once for every training image."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sprintnet.data.dataset import ImageDataset
from sprintnet.errors import SettingsError
from sprintnet.evaluation.task import task_of
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.models.factory import load_model, weights_file
from sprintnet.runtime import Runtime
from sprintnet.training.settings import DistillSettings


def teacher_sha256(settings: DistillSettings) -> str | None:
    """Returns the digest of the teacher's weights file; None without a teacher."""
    return hashlib.sha256(_file(settings).read_bytes()).hexdigest() if settings.teacher else None


def soft_labels(settings: DistillSettings, images: ImageDataset, runtime: Runtime) -> Tensor | None:
    """Returns what training images are trained towards (N, K): weight * the teacher's calibrated probabilities + (1 - weight)
    * the label; None without a teacher.

    Hinton et al. 2015, arXiv:1503.02531, with probabilities of the images as they are instead of each augmented one: a teacher
    of several networks is asked once instead of in every epoch. Raises SettingsError for a teacher of other classes or images.
    """
    if not settings.teacher:
        return None
    saved = load_model(_file(settings))
    preprocessing = saved.preprocessing
    teacher = TrainedModel(runtime.place(saved.network), preprocessing, runtime)
    ours = {"classes": images.classes, "image_shape": images.image_shape, "task": task_of(images).name}
    if changed := [name for name, value in ours.items() if getattr(preprocessing, name) != value]:
        name = changed[0]
        rule = f"its {name} is {getattr(preprocessing, name)}, the data's {ours[name]}; name a model of the same data"
        raise SettingsError(f"distill.teacher={settings.teacher}: {rule}")
    softened = replace(preprocessing, temperature=settings.temperature * (preprocessing.temperature or 1.0))
    probabilities = softened.probabilities(teacher.predict_logits(images.images, "teacher"))
    labels = teacher.task.membership(images.labels, len(images.classes))
    targets = settings.weight * probabilities + (1 - settings.weight) * labels
    return torch.from_numpy(targets.astype(np.float32)).to(runtime.device)


def _file(settings: DistillSettings) -> Path:
    return weights_file(Path(settings.teacher).expanduser(), "distill.teacher")
