"""Pictures of one's own, wherever they lie, become images of one size, mapped from the cache."""

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.custom.decode_cache import DecodeChunk, Failures, load_decoded, load_or_compute, remove_stale
from sprintnet.data.custom.manifest import (
    Manifest,
    ManifestEntry,
    Problem,
    as_text,
    class_problems,
    csv_rows,
    read_folder,
    read_table,
)
from sprintnet.data.custom.npz import Archive
from sprintnet.data.custom.tables import is_huggingface, parquet_rows, read_huggingface
from sprintnet.data.dataset import ImageDataset, Images, class_counts
from sprintnet.data.duplicates import MAX_COMPARED_IMAGES, Duplicate, duplicates_within
from sprintnet.data.images import DECODER_VERSION, FORMATS, MODES, convert_pixels, read_image
from sprintnet.data.settings import DataSettings
from sprintnet.errors import AccessError, DataError
from sprintnet.progress import track
from sprintnet.runs.io import cache_folder

ARRAYS = ".npz"
MAX_NATIVE_SIDE, DEFAULT_SIDE = 96, 64
CHANNELS = {"grey": 1, "rgb": 3, "rgba": 4}
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
ENDINGS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
ORIENTATION, ON_ITS_SIDE = 0x0112, 5
"""The EXIF tag, and from which of its values on height and width change places."""
TABLES = {".csv": csv_rows, ".parquet": parquet_rows}
"""How the rows of a table are read, by its suffix."""
ONLY_EXACT = f"of more than {MAX_COMPARED_IMAGES:,} images only those equal in every pixel are sought as duplicates"
MAX_SINGLE_THREAD_PIXELS = 64 * 64
"""Pixels of pictures, on average, up to which threads would wait for Python's lock longer than they decode."""
MAX_LISTED_PROBLEMS = 20
"""Problems in a message; `sprintnet check` lists them all."""


class ImageHeader(NamedTuple):
    """What a picture's file says of itself."""

    format: str
    mode: str
    height: int
    width: int


ImageHeaders = Sequence[ImageHeader | None]
"""Of each picture; None where its file cannot be opened."""


@dataclass(frozen=True)
class CustomData:
    """Images of one size, with the split that each was given, all that is wrong, and what was chosen."""

    images: ImageDataset
    split: tuple[str, ...]
    """Of each image: train, val, test, or nothing where none is given."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    """What was chosen and what was left out, a sentence each."""
    headers: tuple[ImageHeader, ...]
    """What each picture's file says of itself; of arrays nothing."""
    source: Path
    """The folder of the cache that holds what was found out about the place that they come from."""
    form: str
    """The folder in it that holds these images."""

    def duplicates(self) -> list[Duplicate]:
        """Returns the pairs of images that are there twice, found by the first call and kept; of very many, the equal ones."""
        among = "all" if self.images.rows is None else f"{zlib.crc32(self.images.rows.data):08x}"
        pairs = load_or_compute(self.source, f"{self.form}/duplicates-{among}.json", lambda: duplicates_within(self.images))
        return [Duplicate(*pair) for pair in pairs]


def require_available(name: str) -> None:
    """Raises DataError unless the name is a named data set's or that of something to read; looks no further."""
    if name in BUILTIN_DATASETS:
        return
    kinds = (*TABLES, ARRAYS)
    try:
        path = Path(name).expanduser()
        if not path.exists():
            raise DataError(
                f"data.name={name}: no named data set ({', '.join(BUILTIN_DATASETS)}), and there is no such folder or file; "
                "where it has "
                "moved, name its new place"
            )
        if path.is_dir():
            next(path.iterdir(), path).lstat()
        elif not (path.suffix.lower() in kinds and path.is_file()):
            raise DataError(f"data.name={name}: neither a folder nor a file {', '.join(kinds)}")
    except OSError as error:
        raise DataError(f"data.name={name}: {error.strerror}; make it readable") from None
    except RuntimeError:
        raise DataError(f"data.name={name}: there is no such user; write the path in full") from None


def load_custom(settings: DataSettings) -> CustomData:
    """Returns one's own pictures, decoded by the first call and mapped from the cache after that.

    Raises DataError with all that is wrong in one message; with `settings.skip_bad` what can be left out is.
    """
    own = read_custom(settings)
    harmless = ("note", "skip") if settings.skip_bad else ("note",)
    if wrong := [problem for problem in own.problems if problem.severity not in harmless]:
        raise_problems(settings.name, wrong)
    return own


def read_custom(settings: DataSettings) -> CustomData:
    """Returns those of one's own pictures that can be decoded, with every problem; raises DataError where there is none."""
    require_available(settings.name)
    given = Path(settings.name).expanduser()
    path = given.resolve() if given.is_dir() else given.parent.resolve() / given.name  # however it is spelt, one store
    suffix = path.suffix.lower()
    if path.is_dir():
        return _read_pictures(read_huggingface(path) if is_huggingface(path) else read_folder(path), settings)
    return (
        _read_archive(path, settings) if suffix == ARRAYS else _read_pictures(read_table(path, TABLES[suffix](path)), settings)
    )


def _read_pictures(listing: Manifest, settings: DataSettings) -> CustomData:
    source, state = _source_folder(listing.source), listing.key
    headers = _headers(listing, source, state)
    readable = [header for header in headers if header]
    if not readable:
        none = Problem(as_text(listing.source), "no pictures", "no picture of a class in it can be opened", "stop")
        raise_problems(settings.name, [*listing.problems, none])
    is_small = sum(header.height * header.width for header in readable) <= MAX_SINGLE_THREAD_PIXELS * len(readable)
    shape = None
    while readable and (chosen := choose_shape(readable, settings))[0] != shape:  # what cannot be decoded chooses no shape
        shape, notes = chosen
        form = _form(state, shape, settings)
        images, failures = load_decoded(
            source, form, (len(headers), *shape), _decoder(listing, shape, settings), sequential_only=is_small
        )
        readable = [header for index, header in enumerate(headers) if header and index not in failures]
    remove_stale(source, state)
    broken = [Problem(as_text(listing.entries[index].path), "unreadable", cause) for index, cause in sorted(failures.items())]
    mislabelled = list(_mislabelled(listing, headers))
    rows = np.array([index for index in range(len(headers)) if index not in failures], np.int64)
    listing = replace(listing, entries=tuple(listing.entries[index] for index in rows))
    problems = (
        *listing.problems,
        *broken,
        *class_problems(listing.source, listing.classes, listing.training_classes),
        *mislabelled,
    )
    left_out = sum(problem.severity == "skip" for problem in problems)
    if left_out and settings.skip_bad:
        notes.append(f"left out, since they cannot be used (data.skip_bad): {left_out:,}")
    if listing.ignored_files:
        notes.append(f"hidden files and what systems leave behind, passed over: {listing.ignored_files:,}")
    notes += [ONLY_EXACT] * (len(rows) > MAX_COMPARED_IMAGES)
    files = tuple(as_text(entry.path) for entry in listing.entries)
    groups = tuple(entry.group for entry in listing.entries) if any(entry.group for entry in listing.entries) else None
    return CustomData(
        ImageDataset(images, listing.labels(), listing.classes, files, None if len(rows) == len(images) else rows, groups),
        tuple(entry.split for entry in listing.entries),
        problems,
        tuple(notes),
        tuple(header for index in rows if (header := headers[index])),
        source,
        form,
    )


def _decoder(listing: Manifest, shape: tuple[int, int, int], settings: DataSettings) -> DecodeChunk:
    """Returns what decodes parts of the listed pictures into a store."""

    def fill(images: Images, part: slice) -> tuple[Failures, bool]:
        failures, is_final = {}, True
        for index in range(part.start, part.stop):
            entry, shown = listing.entries[index], as_text(listing.entries[index].path)
            try:
                images[index] = read_image(listing.open(entry), shown, shape[2], FORMATS, shape[:2], settings.resize)
            except DataError as error:
                failures[index] = str(error).removeprefix(f"{shown}: ")
                is_final &= not isinstance(error, AccessError)
        return failures, is_final

    return fill


def _read_archive(path: Path, settings: DataSettings) -> CustomData:
    archive = Archive(path)
    height, width, channels = archive.image_shape
    shape, notes = choose_shape([ImageHeader("", MODES[channels], height, width)], settings)
    notes += [ONLY_EXACT] * (len(archive.split) > MAX_COMPARED_IMAGES)

    def fill(images: Images, part: slice) -> tuple[Failures, bool]:
        for index, pixels in zip(range(part.start, part.stop), archive.read(part), strict=True):
            images[index] = convert_pixels(pixels, shape, settings.resize)
        return {}, True

    status = path.stat()
    source, state = _source_folder(path), hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:32]
    form = _form(state, shape, settings)
    images, _ = load_decoded(source, form, (len(archive.split), *shape), fill, sequential_only=True)
    remove_stale(source, state)
    counts = Counter(archive.split)
    files = tuple(f"{split or 'images'}/{index}" for split, count in counts.items() for index in range(count))
    whole = ImageDataset(images, archive.labels, archive.classes, files)
    trained = archive.labels[[split in ("", "train") for split in archive.split]]
    given, seen = (class_counts(labels, len(archive.classes)) for labels in (archive.labels, trained))
    problems = class_problems(path, np.array(archive.classes)[given > 0], np.array(archive.classes)[seen > 0])
    return CustomData(whole, archive.split, tuple(problems), tuple(notes), (), source, form)


def _source_folder(source: Path) -> Path:
    return cache_folder() / "decoded" / hashlib.sha256(os.fsencode(source)).hexdigest()[:16]


def _form(state: str, shape: tuple[int, int, int], settings: DataSettings) -> str:
    return f"{state}/{'x'.join(map(str, shape))}-{settings.resize}-{DECODER_VERSION}"


def choose_shape(headers: Sequence[ImageHeader], settings: DataSettings) -> tuple[tuple[int, int, int], list[str]]:
    """Returns height, width and channels of the images, from what the settings say and else from the pictures; and why."""
    notes = []
    sizes = Counter((header.height, header.width) for header in headers)
    (height, width), _ = sizes.most_common(1)[0]
    if settings.size:
        height = width = settings.size
    elif len(sizes) > 1 or max(height, width) > MAX_NATIVE_SIDE:
        heights, widths = zip(*sizes, strict=True)
        spread = f"{min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high,"
        met = f"of {len(sizes):,} sizes, {spread}" if len(sizes) > 1 else f"of {width}x{height}"
        height = width = DEFAULT_SIDE
        notes.append(f"pictures {met} are brought to {width}x{height} ({settings.resize}; data.size and data.resize change it)")
    if settings.channels != "auto":
        channels = CHANNELS[settings.channels]
    else:
        channels = 1 if all(header.mode in GREY_MODES for header in headers) else 3
    return (height, width, channels), notes


def _headers(listing: Manifest, source: Path, state: str) -> ImageHeaders:
    """Returns what each picture's file says of itself, kept in the cache; what could not be opened then may open now."""
    headers = load_or_compute(source, f"{state}/headers.json", lambda: _read_headers(listing))
    return [
        ImageHeader(*header) if header else _read_header(listing, entry)
        for header, entry in zip(headers, listing.entries, strict=True)
    ]


def _read_headers(listing: Manifest) -> ImageHeaders:
    entries = track(listing.entries, len(listing.entries), f"looking at {len(listing.entries):,} pictures")
    return [_read_header(listing, entry) for entry in entries]  # in threads, which all want Python's lock, it takes longer


def _read_header(listing: Manifest, entry: ManifestEntry) -> ImageHeader | None:
    try:
        with Image.open(listing.open(entry), formats=FORMATS) as image:
            width, height = image.size
            if "exif" in image.info and image.getexif().get(ORIENTATION, 1) >= ON_ITS_SIDE:
                width, height = height, width
            return ImageHeader(image.format or "", image.mode, height, width)
    except Exception:  # a damaged file can make its decoder raise anything; decoding says what
        return None


def _mislabelled(listing: Manifest, headers: ImageHeaders) -> Iterator[Problem]:
    for entry, header in zip(listing.entries, headers, strict=True):
        suffix = os.path.splitext(entry.path)[1].lower()  # noqa: PTH122  # a fifth of Path's time
        if header and suffix and suffix not in ENDINGS[header.format]:
            text = f"is a {header.format} by its content; it is read as that, rename it to {ENDINGS[header.format][0]}"
            yield Problem(as_text(entry.path), "wrong suffix", text, "note")


def raise_problems(name: str, problems: Sequence[Problem]) -> None:
    """Raises DataError that lists what is wrong, the gravest first."""
    lines = [f"{len(problems):,} {'problems' if len(problems) > 1 else 'problem'}; nothing was started"]
    lines += [
        f"  {problem}" for problem in sorted(problems, key=lambda problem: problem.severity != "stop")[:MAX_LISTED_PROBLEMS]
    ]
    if len(problems) > MAX_LISTED_PROBLEMS:
        lines.append(f"  and {len(problems) - MAX_LISTED_PROBLEMS:,} more: sprintnet check {name}")
    if all(problem.severity == "skip" for problem in problems):
        lines.append("mend them, or leave these files out: data.skip_bad=true")
    raise DataError(f"data.name={name}: " + "\n".join(lines))
