"""Batches on the device; order and augmentation of an epoch are a function of (seed, epoch)."""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sprintnet.data.augment import AugmentParams, augment, sample_params
from sprintnet.data.dataset import ImageDataset, advise
from sprintnet.data.mixing import mix
from sprintnet.data.preprocessing import Normalisation
from sprintnet.data.settings import AugmentSettings
from sprintnet.data.trivial_augment import change_colours
from sprintnet.ranks import ALONE, Ranks

AUGMENTED_BYTES = 2**27  # of fp32 pixels that a GPU augments at once: a few large operations instead of many small ones
Batch = tuple[Tensor, Tensor]  # normalised images (B, C, H, W) in channels_last; labels (B,), or 0 to 1 (B, K)


class Loader:
    """Yields a dataset as normalised batches on a device, as few and as evenly filled as possible.

    The uint8 images are kept on the device; images mapped from a file are read from it on a CPU. With `is_balanced`, an epoch
    has as many images as the dataset, but each class equally often. Training is towards `soft_labels` (N, K) instead of the
    labels, where they are given; with `mixes`, labels are mixed. Of several `ranks`, each gets its part of every batch of an
    epoch.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        normalisation: Normalisation,
        batch_size: int,
        device: torch.device,
        *,
        is_balanced: bool = False,
        soft_labels: Tensor | None = None,
        mixes: bool = False,
        ranks: Ranks = ALONE,
    ):
        self.storage = dataset.storage if device.type == "cpu" else dataset.images
        self.images = torch.from_numpy(self.storage).to(device)
        rows = dataset.rows if device.type == "cpu" else None
        self.rows = None if rows is None else torch.from_numpy(rows)
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self.device = device
        self.normalisation = normalisation
        self.soft_labels, self.mixes, self._classes = soft_labels, mixes, len(dataset.classes)
        self.batch_size = batch_size
        self.ranks = ranks
        batch_bytes = 4 * math.prod(dataset.image_shape) * batch_size
        self.batches_at_once = 1 if device.type == "cpu" else max(1, AUGMENTED_BYTES // batch_bytes)
        labels = dataset.labels
        self._members = (
            [torch.from_numpy(np.flatnonzero(labels == label)) for label in np.unique(labels)] if is_balanced else []
        )
        # (pixel / 255 - mean) / std, as one multiplication and one addition
        mean, std = (torch.tensor(values, device=device) for values in (normalisation.mean, normalisation.std))
        self._scale, self._offset = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        """Returns the number of batches."""
        return -(-len(self.labels) // self.batch_size)

    @property
    def batch_sizes(self) -> list[int]:
        """The number of images of each batch, of all ranks together."""
        return [part.stop - part.start for part in map(self._part, range(len(self)))]

    def sequential(self) -> Iterator[Batch]:
        """Yields each image once, in order, without augmentation."""
        advise(self.storage, "MADV_NORMAL")
        for batch in range(len(self)):
            part = self._part(batch)
            yield self.read(part), self.labels[part]

    def epoch(self, seed: int, epoch: int, settings: AugmentSettings, first_batch: int = 0) -> Iterator[Batch]:
        """Yields the augmented batches of an epoch from `first_batch` on, a function of (seed, epoch)."""
        count, (height, width) = len(self.labels), self.images.shape[1:3]
        generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
        order = torch.randperm(count, generator=generator)
        if self._members:
            order = sample_balanced(self._members, count, generator)[order]
        order = order.to(self.device)
        params = sample_params(count, height, width, settings, generator)
        if settings.alternate_flip and params.flip is not None:
            params = replace(params, flip=self._flipped(seed, epoch, settings.flip)[order.cpu()])
        params = params.to(self.device)
        advise(self.storage, "MADV_RANDOM")
        # a resumed epoch has the same groups, since a GPU may round products of other sizes differently
        for first in range(first_batch - first_batch % self.batches_at_once, len(self), self.batches_at_once):
            parts = [self._part(batch) for batch in range(first, min(first + self.batches_at_once, len(self)))]
            own = [self.ranks.part(part) for part in parts]
            drawn = torch.cat([torch.arange(part.start, part.stop) for part in own]).to(self.device)
            images, labels = self.augmented(order[drawn], params[drawn], settings), self.targets(order[drawn])
            sizes = [part.stop - part.start for part in own]
            mixes = [None] * len(own) if params.mixes is None else torch.split(params.mixes[drawn], sizes)
            batches = zip(torch.split(images, sizes), torch.split(labels, sizes), mixes, strict=True)
            for batch in itertools.islice(batches, max(first_batch - first, 0), None):
                yield batch[:2] if batch[2] is None else mix(batch[0], batch[1], batch[2])

    def augmented(self, indices: Tensor, params: AugmentParams, settings: AugmentSettings) -> Tensor:
        """Returns the augmented images (B, C, H, W) at these indices, not mixed."""
        images = augment(self.read(indices, params.changes), params, settings)
        return images.contiguous(memory_format=torch.channels_last)

    def targets(self, indices: Tensor) -> Tensor:
        """Returns what images are trained towards: labels (B,) or (B, K), or where they are soft or mixed, fp32 (B, K)."""
        if self.soft_labels is not None:
            return self.soft_labels[indices]
        labels = self.labels[indices]
        if not self.mixes:
            return labels
        return labels.float() if labels.ndim == 2 else F.one_hot(labels, self._classes).float()

    def endless(self, seed: int, settings: AugmentSettings) -> Iterator[Batch]:
        """Yields the batches of one epoch after another."""
        for epoch in itertools.count():
            yield from self.epoch(seed, epoch, settings)

    def first(self, count: int) -> Tensor:
        """Returns `count` images, normalised (N, C, H, W): the first, or of sorted classes evenly spaced ones."""
        total = len(self.labels)
        if count >= total or self.labels.ndim > 1 or bool((self.labels.diff() < 0).any()):
            return self.read(slice(count))
        return self.read(torch.arange(count, device=self.images.device) * total // count)

    def _part(self, batch: int) -> slice:
        # evenly: a last batch of a few images would spoil the running statistics of batch norm
        count = len(self.labels)
        return slice(count * batch // len(self), count * (batch + 1) // len(self))

    def _flipped(self, seed: int, epoch: int, probability: float) -> Tensor:
        # Jordan 2024, arXiv:2404.00498, section 3.6: each image and its mirror image are seen every two epochs
        generator = torch.Generator().manual_seed(_epoch_seed(seed, -1))  # used by no epoch
        is_flipped = torch.rand(len(self.labels), generator=generator) < probability
        return is_flipped ^ (epoch % 2 == 1)

    def read(self, part: slice | Tensor, changes: Tensor | None = None) -> Tensor:
        """Returns the normalised images (B, C, H, W) of these rows, with TrivialAugment's changes of their colours."""
        pixels = self.images[part if self.rows is None else self.rows[part]]
        if changes is not None:
            pixels = change_colours(pixels, changes)
        normalised = torch.addcmul(self._offset, pixels.float(), self._scale).permute(0, 3, 1, 2)
        advise(self.storage, "MADV_DONTNEED")
        return normalised


def sample_balanced(members: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Returns `count` indices, class by class: each class, and each of its members, equally often, to within one."""
    per_class, rest = divmod(count, len(members))
    order = torch.randperm(len(members), generator=generator)
    indices = []
    for images, position in zip(members, order.tolist(), strict=True):
        repeats, more = divmod(per_class + (position < rest), len(images))
        extra = torch.randperm(len(images), generator=generator)[:more]
        indices.append(torch.cat([images.repeat(repeats), images[extra]]))
    return torch.cat(indices)


def _epoch_seed(seed: int, epoch: int) -> int:
    # hashed, so that (seed, epoch + 1) and (seed + 1, epoch) are unrelated
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "little") >> 1
