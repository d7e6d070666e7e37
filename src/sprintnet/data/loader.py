"""In-memory batches on the device; order and augmentation of an epoch are a function of (seed, epoch)."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sprintnet.data.augment import augment, sample_params
from sprintnet.data.dataset import ImageDataset, Labels, advise_access, release_pages
from sprintnet.data.preprocessing import Normalisation
from sprintnet.data.settings import AugmentSettings

Batch = tuple[Tensor, Tensor]
"""Normalised images (B, C, H, W) in channels_last, labels (B,), or (B, K) of 0 and 1."""


class Loader:
    """The images of a data set as uint8, handed out on the device in as few normalised batches as can be, evenly filled.

    They lie on the device; but on a CPU, images mapped from a file stay there, and each batch is read anew. Balanced, an epoch
    has as many images as ever, but every class equally often.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        normalisation: Normalisation,
        batch_size: int,
        device: torch.device,
        *,
        is_balanced: bool = False,
    ):
        self.storage = dataset.storage if device.type == "cpu" else dataset.images
        self.images = torch.from_numpy(self.storage).to(device)
        rows = dataset.rows if device.type == "cpu" else None
        self.rows = None if rows is None else torch.from_numpy(rows)
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self.device = device
        self.normalisation = normalisation
        self.batch_size = batch_size
        self._members = indices_by_class(dataset.labels) if is_balanced else None
        # (pixel / 255 - mean) / std, as one multiplication and one addition
        mean, std = (torch.tensor(values, device=device) for values in (normalisation.mean, normalisation.std))
        self._scale, self._offset = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        """Returns the number of batches."""
        return -(-len(self.labels) // self.batch_size)

    def sequential(self) -> Iterator[Batch]:
        """Yields every image once, unvaried, in the data set's order."""
        advise_access(self.storage, is_random=False)
        for batch in range(len(self)):
            part = self._part(batch)
            yield self._read(part), self.labels[part]

    def epoch(self, seed: int, epoch: int, settings: AugmentSettings, first_batch: int = 0) -> Iterator[Batch]:
        """Yields every image once, or every class equally often, varied, in the order of (seed, epoch), from `first_batch`."""
        count, (height, width) = len(self.labels), self.images.shape[1:3]
        generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
        order = torch.randperm(count, generator=generator)
        if self._members:
            order = balanced(self._members, count, generator)[order]
        order = order.to(self.device)
        params = sample_params(count, height, width, settings, generator)
        if settings.alternate_flip:
            params = replace(params, flip=self._flipped(seed, epoch, settings.flip)[order.cpu()])
        params = params.to(self.device)
        advise_access(self.storage, is_random=True)
        for batch in range(first_batch, len(self)):
            part = self._part(batch)
            chosen = order[part]
            images = augment(self._read(chosen), params[part], settings)
            yield images.contiguous(memory_format=torch.channels_last), self.labels[chosen]

    def endless(self, seed: int, settings: AugmentSettings) -> Iterator[Batch]:
        """Yields the batches of epoch after epoch."""
        for epoch in itertools.count():
            yield from self.epoch(seed, epoch, settings)

    def first(self, count: int) -> Tensor:
        """Returns the first `count` images, or all if there are fewer, normalised and unvaried (N, C, H, W).

        Of images that come class by class, as those of a folder do, as many are taken from all parts.
        """
        whole = len(self.labels)
        if count >= whole or self.labels.ndim > 1 or bool((self.labels.diff() < 0).any()):
            return self._read(slice(count))
        return self._read(torch.arange(count, device=self.images.device) * whole // count)

    def _part(self, batch: int) -> slice:
        # evenly: batch norm's running statistics hang on the last steps, which a rest of a few images would spoil
        count = len(self.labels)
        return slice(count * batch // len(self), count * (batch + 1) // len(self))

    def _flipped(self, seed: int, epoch: int, share: float) -> Tensor:
        # Jordan 2024, arXiv:2404.00498, section 3.6: all pairs of image and mirror image are seen every two epochs
        generator = torch.Generator().manual_seed(_epoch_seed(seed, -1))  # no epoch's own
        drawn_once = torch.rand(len(self.labels), generator=generator) < share
        return drawn_once ^ (epoch % 2 == 1)

    def _read(self, part: slice | Tensor) -> Tensor:
        pixels = self.images[part if self.rows is None else self.rows[part]]
        normalised = torch.addcmul(self._offset, pixels.float(), self._scale).permute(0, 3, 1, 2)
        release_pages(self.storage)
        return normalised


def balanced(members: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Returns `count` indices, class after class, from the members of each class: all classes equally often, to within one.

    Within a class too all members appear equally often, to within one; the generator params which have the one more.
    """
    share, rest = divmod(count, len(members))
    luck = torch.randperm(len(members), generator=generator)
    drawn = []
    for indices, place in zip(members, luck.tolist(), strict=True):
        rounds, more = divmod(share + (place < rest), len(indices))
        chosen = torch.randperm(len(indices), generator=generator)[:more]
        drawn.append(torch.cat([indices.repeat(rounds), indices[chosen]]))
    return torch.cat(drawn)


def indices_by_class(labels: Labels) -> list[Tensor]:
    """Returns the indices of each class's images; a class without any is left out."""
    return [torch.from_numpy(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def _epoch_seed(seed: int, epoch: int) -> int:
    # hashed, so that (seed, epoch + 1) and (seed + 1, epoch) have nothing in common
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "little") >> 1
