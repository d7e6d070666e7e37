"""Duplicate images: equal in every pixel, or alike except for size, compression, brightness or a shift of a few pixels."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sprintnet.data.dataset import BLOCK_SIZE, ImageDataset, Images
from sprintnet.progress import track

SIDE, FREQUENCIES = 32, 8
HASH_BITS = 2 * FREQUENCIES**2 - 2 * FREQUENCIES
SPECTRUM_SLOPE = 1.3
"""Amplitudes of natural images fall with about this power of the frequency: without it, half of the bits would be known."""
MIN_HASH_AGREEMENT = 0.46  # of two hashes, from -1 to 1, before their images' pixels are compared
MAX_COMPARED_IMAGES = 100_000  # images of which each pair is compared, in minutes
PAIRS_AT_A_TIME = 100  # whose pixels are in memory
MAX_CANDIDATES = 4  # images with the nearest hashes that are compared with an image
MAX_SHIFT = 3
MIN_EDGE_CORRELATION = 0.75
"""Chosen on CIFAR-10 by eye: of the pairs just above, about one in fifty is no duplicate; at 0.70, one in ten."""
GREY, OTHER_COLOUR, MAX_RECOLOURED = 4.0, 100.0, 0.05
"""Levels by which an image is grey on average, by which two areas have different colours (photos get colour casts), and the
share of such areas above which two images are different; an image may be a grey copy."""
MAX_PARTNERS, MAX_CLUSTERED, MIN_CLUSTERED = 2, 0.05, 50
"""If MIN_CLUSTERED images, and more than MAX_CLUSTERED of all, have more near duplicates than MAX_PARTNERS, they all look
alike, and only equal pixels count."""
VERSION = 2
"""Of the method: duplicates that an earlier one found are searched again."""
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

    Candidates have similar perceptual hashes (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions"). They are duplicates if their colours are similar and their edges correlate, which those of plain skies do not.
    """
    other = a if b is None else b
    exact = list(equal_pixels(a, b))
    hashes = _hashes(a)
    others = hashes if b is None else _hashes(other)
    seen = {(pair.first, pair.second) for pair in exact}
    original = {pair.second: pair.first for pair in exact} if b is None else {}
    near = []
    starts = range(0, len(other), BLOCK_SIZE)
    for start in track(starts, len(starts), "comparing images"):
        second, first = _near_hashes(others[start : start + BLOCK_SIZE], hashes)
        second = second + start
        if b is None:
            first, second = first[first < second], second[first < second]
        for part in range(0, len(first), PAIRS_AT_A_TIME):
            rows, columns = (indices[part : part + PAIRS_AT_A_TIME] for indices in (first, second))
            pixels = a.take(rows).images, other.take(columns).images
            correlations, shifts = _correlations(*map(_edges, pixels))
            for index in np.flatnonzero(correlations >= MIN_EDGE_CORRELATION):
                i, j = int(rows[index]), int(columns[index])
                is_new = (i, j) not in seen and (b or original.get(i, i) != original.get(j, j))
                if is_new and _has_same_colours(pixels[0][index], pixels[1][index], shifts[index]):
                    near.append(Duplicate(i, j, min(float(correlations[index]), 0.9999)))
    if not _are_clustered(near, len(other), within=b is None):
        return sorted(exact + near)
    print(
        f"{len(near):,} pairs of images look alike, many of them several times: only equal pixels count as duplicates",
        flush=True,
    )
    return sorted(exact)


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
    """Returns the hashes (N, HASH_BITS) of 1 and -1, or 0 for an image of one colour.

    The signs of amplitudes at low frequencies, relative to their median: a shift of the image hardly changes them.
    """
    window = np.hanning(SIDE + 2)[1:-1]
    frequencies = SIDE * np.fft.fftfreq(SIDE)
    weights = np.outer(window, window) / (SIDE * SIDE), np.hypot(frequencies[:, None], frequencies) ** SPECTRUM_SLOPE
    hashes = [np.empty((0, HASH_BITS), np.float32)]
    for block in images.blocks():
        small = _small(block)
        waves = np.abs(np.fft.fft2((small - small.mean(axis=(1, 2), keepdims=True)) * weights[0])) * weights[1]
        parts = waves[:, :FREQUENCIES, :FREQUENCIES], waves[:, 1 - FREQUENCIES :, 1:FREQUENCIES]  # the rest is their mirror
        low = np.concatenate([part.reshape(len(block), -1) for part in parts], axis=1)[:, 1:]
        signs = np.where(low > np.median(low, axis=1, keepdims=True), 1, -1)
        hashes.append(np.where(low.max(axis=1, keepdims=True) > 0.5, signs, 0).astype(np.float32))
    return np.concatenate(hashes, dtype=np.float32)


def _near_hashes(queries: Floats, hashes: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns pairs (query, hash) of the nearest hashes."""
    agreement = queries @ hashes.T
    query, found = np.nonzero(agreement >= MIN_HASH_AGREEMENT * HASH_BITS)
    order = np.lexsort((-agreement[query, found], query))
    query, found = query[order], found[order]
    nearest = np.arange(len(query)) - np.searchsorted(query, query) <= MAX_CANDIDATES  # one more: one may be the image itself
    return query[nearest], found[nearest]


def _are_clustered(near: Sequence[Duplicate], images: int, *, within: bool) -> bool:
    """Returns whether so many images have several near duplicates that these are no duplicates."""
    partners = Counter(pair.second for pair in near)
    if within:
        partners.update(pair.first for pair in near)
    clustered = sum(count > MAX_PARTNERS for count in partners.values())
    return clustered >= MIN_CLUSTERED and clustered > MAX_CLUSTERED * images


def _has_same_colours(a: Images, b: Images, shift: tuple[int, int]) -> bool:
    """Returns whether two images (H, W, C) have the same colours where they overlap, or one of them is grey."""
    if a.shape[2] < 3:
        return True
    first, second = (_colours(image[None]) for image in (a, b))
    if min(np.abs(first).mean(), np.abs(second).mean()) < GREY:
        return True
    (there, here), (beside, along) = (_overlap(length, SIDE) for length in shift)
    differences = np.abs(first[:, there, beside] - second[:, here, along]).max(axis=0)
    return bool((differences > OTHER_COLOUR).mean() < MAX_RECOLOURED)


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Returns the parts of two lines that lie over each other when the first is shifted."""
    return slice(max(0, shift), length + min(0, shift)), slice(max(0, -shift), length + min(0, -shift))


def _colours(images: Images) -> Floats:
    """Returns differences of channels (2, SIDE, SIDE) of one image: 0 for grey."""
    rows, columns = (_coverage(length) for length in images.shape[1:3])
    red, green, blue = np.moveaxis(images[0, ..., :3].astype(np.float32), 2, 0)
    return np.stack([rows @ plane @ columns.T for plane in (red - green, (red + green) / 2 - blue)])


def _small(images: Images) -> Floats:
    """Returns grey images (N, SIDE, SIDE), each pixel the mean of the area that it covers."""
    weights = {1: [1.0], 3: [0.299, 0.587, 0.114], 4: [0.299, 0.587, 0.114, 0.0]}[images.shape[3]]
    grey = images.astype(np.float32) @ np.array(weights, np.float32)
    rows, columns = (_coverage(length) for length in grey.shape[1:])
    return np.asarray(rows @ grey @ columns.T)


def _coverage(length: int) -> Floats:
    """Returns the weights (SIDE, length) by which each of SIDE pixels averages the `length` pixels of a line."""
    ends = np.arange(SIDE + 1) * length / SIDE
    pixels = np.arange(length)
    covered = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return np.asarray(np.maximum(covered, 0) * SIDE / length, np.float32)


def _edges(images: Images) -> Floats:
    """Returns horizontal and vertical differences (N, 2, SIDE - 2, SIDE - 2)."""
    small = _small(images)
    return np.stack([small[:, 1:-1, 2:] - small[:, 1:-1, :-2], small[:, 2:, 1:-1] - small[:, :-2, 1:-1]], 1)


def _correlations(a: Floats, b: Floats) -> tuple[Floats, list[tuple[int, int]]]:
    """Returns the correlation (N,) of edges at the best shift of up to MAX_SHIFT pixels, and these shifts."""
    shifts = list(product(range(-MAX_SHIFT, MAX_SHIFT + 1), repeat=2))
    found = np.empty((len(shifts), len(a)), np.float32)
    for row, (y, x) in enumerate(shifts):
        (there, here), (beside, along) = (_overlap(shift, SIDE - 2) for shift in (y, x))
        u = a[:, :, there, beside].reshape(len(a), -1)
        v = b[:, :, here, along].reshape(len(b), -1)
        norm = np.sqrt((u * u).sum(axis=1) * (v * v).sum(axis=1))
        found[row] = (u * v).sum(axis=1) / np.maximum(norm, 1e-6)
    return found.max(axis=0), [shifts[row] for row in found.argmax(axis=0)]
