"""Duplicate images: equal in every pixel, or alike except for size, compression, colour or a small shift."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sprintnet.data.dataset import BLOCK_SIZE, ImageDataset, Images
from sprintnet.progress import track

HASH_SIDE, FREQUENCIES = 32, 8
HASH_BITS = FREQUENCIES**2 - 1
MAX_HASH_DISTANCE = 14  # bits by which two hashes may differ before their images' pixels are compared
MAX_COMPARED_IMAGES = 100_000  # images of which each pair is compared, in about a minute
MAX_CANDIDATES = 16  # images with the nearest hashes that are compared with an image
MAX_CROWDED_FRACTION = 0.2
"""If more of the images have more candidates, all images look alike, and only equal pixels count. CIFAR-10: 0.04; digits of
8x8 pixels: 0.36; Fashion-MNIST: 0.92."""
MAX_SHIFT = 2
MIN_EDGE_CORRELATION = 0.75
"""Chosen on CIFAR-10 by eye: of the pairs just above, about one in fifty is no duplicate; at 0.70, one in ten."""
Floats = npt.NDArray[np.float32]


class Duplicate(NamedTuple):
    """Image `first` of a dataset is image `second` of another; `correlation` of their edges, 1 if all pixels are equal."""

    first: int
    second: int
    correlation: float

    @property
    def is_exact(self) -> bool:
        """Whether all pixels are equal."""
        return self.correlation == 1


def duplicates_within(images: ImageDataset) -> list[Duplicate]:
    """Returns the pairs of duplicates; of more than MAX_COMPARED_IMAGES only those with equal pixels."""
    return find_duplicates(images) if len(images) <= MAX_COMPARED_IMAGES else list(equal_pixels(images))


def find_duplicates(a: ImageDataset, b: ImageDataset | None = None) -> list[Duplicate]:
    """Returns the pairs of images of `a` and `b`, of one shape, that are duplicates; without `b`, those within `a`.

    Candidates have similar perceptual hashes: the signs of low frequencies of a small grey image, relative to their median
    (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"). They are duplicates if their edges
    correlate, which those of plain skies do not. 50,000 by 10,000 images take seconds.
    """
    other = a if b is None else b
    exact = list(equal_pixels(a, b))
    hashes = _hashes(a)
    others = hashes if b is None else _hashes(other)
    seen = {(pair.first, pair.second) for pair in exact}
    original = {pair.second: pair.first for pair in exact} if b is None else {}
    near, crowded = [], 0
    starts = range(0, len(other), BLOCK_SIZE)
    for start in track(starts, len(starts), "comparing images"):
        second, first, crowd = _near_hashes(others[start : start + BLOCK_SIZE], hashes)
        crowded += crowd
        second = second + start
        if b is None:
            first, second = first[first < second], second[first < second]
        if not len(first):
            continue
        correlations = _correlations(_edges(a.take(first).images), _edges(other.take(second).images))
        near += [
            Duplicate(int(i), int(j), min(float(value), 0.9999))
            for i, j, value in zip(first, second, correlations, strict=True)
            if value >= MIN_EDGE_CORRELATION and (i, j) not in seen and (b or original.get(i, i) != original.get(j, j))
        ]
    return sorted(exact if crowded > MAX_CROWDED_FRACTION * len(other) else exact + near)


def equal_pixels(a: ImageDataset, b: ImageDataset | None = None) -> Iterator[Duplicate]:
    """Yields pairs of images of `a` and `b` with equal pixels, or within `a` the first of several with each other."""
    indices: dict[bytes, list[int]] = defaultdict(list)
    for index, key in enumerate(_digests(a)):
        if b is None and key in indices:
            yield Duplicate(indices[key][0], index, 1.0)
        else:
            indices[key].append(index)
    for index, key in enumerate(_digests(b) if b else ()):
        yield from (Duplicate(first, index, 1.0) for first in indices.get(key, ()))


def _digests(images: ImageDataset) -> Iterator[bytes]:
    for block in images.blocks():
        for image in block:
            yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _hashes(images: ImageDataset) -> Floats:
    """Returns the hashes (N, HASH_BITS) of 1 and -1, or 0 for an image of one colour."""
    grid = np.arange(HASH_SIDE) + 0.5
    cosines = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * grid / HASH_SIDE).astype(np.float32)
    hashes = [np.empty((0, HASH_BITS), np.float32)]
    for block in images.blocks():
        waves = (cosines @ _small(block) @ cosines.T).reshape(len(block), -1)[:, 1:]
        signs = np.where(waves > np.median(waves, axis=1, keepdims=True), 1, -1)
        hashes.append(np.where(np.abs(waves).max(axis=1, keepdims=True) > 1, signs, 0).astype(np.float32))
    return np.concatenate(hashes, dtype=np.float32)


def _near_hashes(queries: Floats, hashes: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Returns pairs (query, hash) of the nearest hashes, and how many queries have more than MAX_CANDIDATES of them."""
    agreement = queries @ hashes.T
    query, found = np.nonzero(agreement >= HASH_BITS - 2 * MAX_HASH_DISTANCE)
    order = np.lexsort((-agreement[query, found], query))
    query, found = query[order], found[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    nearest = rank <= MAX_CANDIDATES  # one more: one may be the image itself
    return query[nearest], found[nearest], int((rank == MAX_CANDIDATES + 1).sum())


def _small(images: Images) -> Floats:
    """Returns grey images (N, HASH_SIDE, HASH_SIDE), each pixel the mean of the area that it covers."""
    weights = {1: [1.0], 3: [0.299, 0.587, 0.114], 4: [0.299, 0.587, 0.114, 0.0]}[images.shape[3]]
    grey = images.astype(np.float32) @ np.array(weights, np.float32)
    rows, columns = (_coverage(length) for length in grey.shape[1:])
    return np.asarray(rows @ grey @ columns.T)


def _coverage(length: int) -> Floats:
    """Returns the weights (HASH_SIDE, length) by which each of HASH_SIDE pixels averages the `length` pixels of a line."""
    ends = np.arange(HASH_SIDE + 1) * length / HASH_SIDE
    pixels = np.arange(length)
    covered = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return np.asarray(np.maximum(covered, 0) * HASH_SIDE / length, np.float32)


def _edges(images: Images) -> Floats:
    """Returns horizontal and vertical differences (N, 2, HASH_SIDE - 2, HASH_SIDE - 2)."""
    small = _small(images)
    return np.stack([small[:, 1:-1, 2:] - small[:, 1:-1, :-2], small[:, 2:, 1:-1] - small[:, :-2, 1:-1]], 1)


def _correlations(a: Floats, b: Floats) -> Floats:
    """Returns the correlation (N,) of edges at the best shift of up to MAX_SHIFT pixels."""
    best = np.full(len(a), -1, np.float32)
    overlap = {shift: slice(max(0, shift), HASH_SIDE - 2 + min(0, shift)) for shift in range(-MAX_SHIFT, MAX_SHIFT + 1)}
    for y, x in product(overlap, repeat=2):
        u = a[:, :, overlap[y], overlap[x]].reshape(len(a), -1)
        v = b[:, :, overlap[-y], overlap[-x]].reshape(len(b), -1)
        norm = np.sqrt((u * u).sum(axis=1) * (v * v).sum(axis=1))
        best = np.maximum(best, (u * v).sum(axis=1) / np.maximum(norm, 1e-6))
    return np.asarray(best)
