"""Image headers: format, mode and size of image files, and the shape of the dataset that follows from them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from sprintnet.data.custom.conventions import as_text
from sprintnet.data.custom.decode_cache import DecodeCache
from sprintnet.data.custom.manifest import Manifest, ManifestEntry, Problem
from sprintnet.data.image_files import IMAGE_FORMATS, IMAGE_SUFFIXES, ORIENTATION_KEYS, SWAPPED_FROM, open_image, orientation
from sprintnet.data.settings import DataSettings
from sprintnet.progress import track

MAX_NATIVE_SIDE, DEFAULT_SIDE = 96, 64
CHANNEL_COUNTS = {"grey": 1, "rgb": 3, "rgba": 4}
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")


class ImageHeader(NamedTuple):
    """The header of an image file."""

    format: str
    mode: str
    height: int
    width: int


ImageHeaders = Sequence[ImageHeader | None]  # one for each image; None if the file cannot be opened


def read_headers(manifest: Manifest, cache: DecodeCache) -> ImageHeaders:
    """Returns the header of each image, cached; files that could not be opened are tried again."""
    entries = manifest.entries
    tracked = track(entries, len(entries), f"reading {len(entries):,} image headers")
    # in one thread: threads would wait for Python's lock
    headers = cache.json("headers.json", lambda: [_read_header(manifest, entry) for entry in tracked])
    pairs = zip(headers, entries, strict=True)
    return [ImageHeader(*header) if header else _read_header(manifest, entry) for header, entry in pairs]


def _read_header(manifest: Manifest, entry: ManifestEntry) -> ImageHeader | None:
    try:
        with _open(manifest.open(entry)) as image:
            width, height = image.size
            may_be_turned = any(key in image.info for key in ORIENTATION_KEYS)  # else a PNG would be decoded to find out
            if may_be_turned and orientation(image) >= SWAPPED_FROM:
                width, height = height, width
            return ImageHeader(image.format or "", image.mode, height, width)
    except Exception:  # a damaged file can raise anything; decoding reports the cause
        return None


def _open(source: Path | BinaryIO) -> Image.Image:
    try:
        return Image.open(source, formats=IMAGE_FORMATS)  # reads the header alone
    except ValueError:  # of text in a PNG that is larger than Pillow reads
        if not isinstance(source, Path):
            source.seek(0)
        return open_image(source)


def choose_shape(headers: Sequence[ImageHeader], settings: DataSettings) -> tuple[tuple[int, int, int], list[str]]:
    """Returns height, width and channels from the settings, or from the images where they say nothing; and notes."""
    notes = []
    sizes = Counter((header.height, header.width) for header in headers)
    (height, width), _ = sizes.most_common(1)[0]
    if settings.size:
        height = width = settings.size
    elif len(sizes) > 1 or max(height, width) > MAX_NATIVE_SIDE:
        heights, widths = zip(*sizes, strict=True)
        ranges = f"width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)}"
        found = f"{len(sizes):,} sizes ({ranges})" if len(sizes) > 1 else f"size {width}x{height}"
        height = width = DEFAULT_SIDE
        choices = f"{settings.resize}; see data.size, data.resize; the recipe photos takes 224x224, cropped"
        notes.append(f"images of {found} are resized to {width}x{height} ({choices})")
    if settings.channels != "auto":
        channels = CHANNEL_COUNTS[settings.channels]
    else:
        channels = 1 if all(header.mode in GREY_MODES for header in headers) else 3
    return (height, width, channels), notes


def suffix_problems(manifest: Manifest, headers: ImageHeaders) -> Iterator[Problem]:
    """Yields a note for each file whose suffix does not fit its content."""
    for entry, header in zip(manifest.entries, headers, strict=True):
        suffix = os.path.splitext(entry.path)[1].lower()  # noqa: PTH122  # a fifth of Path's time
        if header and suffix:
            found = "JPEG" if header.format == "MPO" else header.format  # a JPEG with several images
            if found != IMAGE_SUFFIXES.get(suffix):
                text = f"contains a {found}, and is read as one; rename it to .{found.lower()}"
                yield Problem(as_text(entry.path), "wrong suffix", text, "note")
