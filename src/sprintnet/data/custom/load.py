"""Custom datasets: a folder, table or archive becomes images of one shape, decoded once and mapped from the cache."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.custom.conventions import as_text
from sprintnet.data.custom.decode_cache import DecodeCache, DecodeChunk, Failures
from sprintnet.data.custom.folders import read_folder
from sprintnet.data.custom.headers import ImageHeader, choose_shape, read_headers, suffix_problems
from sprintnet.data.custom.manifest import TRAINING_PROBLEMS, Manifest, Problem, class_problems, stamp
from sprintnet.data.custom.npz import Archive
from sprintnet.data.custom.tables import is_huggingface, read_csv, read_huggingface, read_parquet, read_table
from sprintnet.data.dataset import ImageDataset, Images, one_colour
from sprintnet.data.duplicates import MAX_COMPARED_IMAGES, Duplicate, duplicates_within
from sprintnet.data.duplicates import VERSION as DUPLICATES_VERSION
from sprintnet.data.image_files import IMAGE_FORMATS
from sprintnet.data.images import PIL_MODES, convert_pixels, read_image
from sprintnet.data.settings import DataSettings
from sprintnet.errors import AccessError, DataError, did_you_mean

TABLE_READERS = {".csv": read_csv, ".parquet": read_parquet}
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
MAX_SEQUENTIAL_PIXELS = 64 * 64
"""Average pixels of an image up to which threads would wait for Python's lock longer than they decode."""
MAX_PROBLEMS_SHOWN = 20  # problems in a message; `sprintnet check` lists all


@dataclass(frozen=True)
class CustomData:
    """The images of a custom dataset, with their splits, all problems, and what was chosen or left out."""

    images: ImageDataset
    split: tuple[str, ...] = ()
    """train, val, test or nothing for each image; (): no image has a split."""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    headers: tuple[ImageHeader, ...] = ()
    """Of image files alone."""
    cache: DecodeCache | None = None
    """Of images from files."""
    variant: str = ""
    """The folder in the cache."""

    def duplicates(self) -> list[Duplicate]:
        """Returns the pairs of duplicate images, cached; of more than MAX_COMPARED_IMAGES only the equal ones."""
        if self.cache is None:
            return duplicates_within(self.images)
        rows = "all" if self.images.rows is None else f"{zlib.crc32(self.images.rows.data):08x}"
        pairs = self.cache.json(
            f"{self.variant}/duplicates-{DUPLICATES_VERSION}-{rows}.json", lambda: duplicates_within(self.images)
        )
        return [Duplicate(*pair) for pair in pairs]


def require_available(name: str) -> None:
    """Raises DataError unless this is a built-in dataset, or a folder or file that can be read; opens none."""
    if name in BUILTIN_DATASETS:
        return
    suffixes = (*TABLE_READERS, ".npz")
    try:
        path = Path(name).expanduser()
        if not path.exists():
            beside = [str(path.with_name(each.name)) for each in path.parent.iterdir()] if path.parent.is_dir() else []
            names, hint = ", ".join(BUILTIN_DATASETS), did_you_mean(name, [*BUILTIN_DATASETS, *beside])
            raise DataError(f"data.name={name}: no built-in dataset ({names}), and no such folder or file{hint}")
        if path.is_dir():
            next(path.iterdir(), path).lstat()
        elif path.suffix.lower() in ARCHIVE_SUFFIXES:
            raise DataError(f"data.name={name}: is an archive; unpack it, and name the folder that holds the classes")
        elif not (path.suffix.lower() in suffixes and path.is_file()):
            raise DataError(f"data.name={name}: must be a folder or a file {', '.join(suffixes)}")
    except OSError as error:
        raise DataError(f"data.name={name}: {error.strerror}; make it readable") from None
    except RuntimeError:
        raise DataError(f"data.name={name}: no such user; write the full path") from None


def load_custom(settings: DataSettings, *, for_training: bool = True) -> CustomData:
    """Returns a custom dataset; raises DataError with all problems, but for those that `settings.skip_bad` leaves out."""
    data = read_custom(settings)
    ignored = ("note", "skippable") if settings.skip_bad else ("note",)
    allowed = () if for_training else TRAINING_PROBLEMS
    if problems := [problem for problem in data.problems if problem.severity not in ignored and problem.kind not in allowed]:
        _raise_problems(settings.name, problems)
    return data


def read_custom(settings: DataSettings) -> CustomData:
    """Returns the images that can be decoded, with all problems; raises DataError if there are none."""
    require_available(settings.name)
    given = Path(settings.name).expanduser()
    path = given.resolve() if given.is_dir() else given.parent.resolve() / given.name  # one cache for all spellings
    if path.is_dir():
        data = _load_images(read_huggingface(path) if is_huggingface(path) else read_folder(path), settings)
    elif path.suffix.lower() == ".npz":
        data = _load_archive(path, settings)
    else:
        data = _load_images(read_table(path, *TABLE_READERS[path.suffix.lower()](path)), settings)
    if len(data.images) <= MAX_COMPARED_IMAGES:
        return data
    note = f"more than {MAX_COMPARED_IMAGES:,} images: only duplicates with equal pixels are searched for"
    return replace(data, notes=(*data.notes, note))


def _load_images(manifest: Manifest, settings: DataSettings) -> CustomData:
    cache = DecodeCache(manifest.source, manifest.fingerprint)
    headers = read_headers(manifest, cache)
    readable = [header for header in headers if header]
    is_divided = not any(problem.kind == "no class folders" for problem in manifest.problems)
    none = Problem(as_text(manifest.source), "no images", "contains no image of a class that can be opened", "error")
    if not readable:
        _raise_problems(settings.name, [*manifest.problems, *([none] if is_divided else [])])
    is_small = sum(header.height * header.width for header in readable) <= MAX_SEQUENTIAL_PIXELS * len(readable)
    shape = None
    while readable and (choice := choose_shape(readable, settings))[0] != shape:  # only images that can be decoded count
        shape, notes = choice
        variant, decode = _variant(shape, settings), _decoder(manifest, shape, settings)
        images, failures = cache.images(variant, (len(headers), *shape), decode, is_sequential=is_small)
        readable = [header for index, header in enumerate(headers) if header and index not in failures]
    cache.remove_stale()
    unreadable = [Problem(as_text(manifest.entries[index].path), "unreadable", failures[index]) for index in sorted(failures)]
    if not readable:
        _raise_problems(settings.name, [*manifest.problems, *unreadable, none])
    wrong_suffixes = suffix_problems(manifest, headers)
    rows = np.array([index for index in range(len(headers)) if index not in failures], np.int64)
    manifest = replace(manifest, entries=tuple(manifest.entries[index] for index in rows))
    groups = tuple(entry.group for entry in manifest.entries)
    files, split = tuple(as_text(entry.path) for entry in manifest.entries), tuple(entry.split for entry in manifest.entries)
    taken = None if len(rows) == len(images) else rows
    dataset = ImageDataset(images, manifest.labels(), manifest.classes, files, taken, groups if any(groups) else None)
    unseen = class_problems(manifest.source, dataset, split)
    plain = _one_colour(cache, variant, manifest.source, dataset)
    problems = (*manifest.problems, *unreadable, *unseen, *plain, *wrong_suffixes)
    if settings.skip_bad and (left_out := sum(problem.severity == "skippable" for problem in problems)):
        notes.append(f"left out (data.skip_bad): {left_out:,}")
    if plain:
        notes.append(f"images of one colour throughout: {len(plain):,} (sprintnet check lists them)")
    kept_headers = tuple(header for index in rows if (header := headers[index]))
    return CustomData(dataset, split, problems, (*notes, *manifest.notes, *cache.notes), kept_headers, cache, variant)


def _one_colour(cache: DecodeCache, variant: str, source: Path, images: ImageDataset) -> list[Problem]:
    """Returns a note for each image of one colour throughout; where it is the same in all, an error: nothing can be learned."""
    rows = "all" if images.rows is None else f"{zlib.crc32(images.rows.data):08x}"
    found = cache.json(f"{variant}/one-colour-{rows}.json", lambda: one_colour(images))
    if found and len(found) == len(images) and len(colours := np.unique(images.images[:, 0, 0], axis=0)) == 1:
        text = f"all of its images show nothing but one colour ({', '.join(map(str, colours[0]))} of 255); save them again"
        return [Problem(as_text(source), "one colour", text, "error")]
    files = images.files or ()
    return [Problem(files[index], "one colour", "has one colour throughout; is it meant?", "note") for index in found]


def _decoder(manifest: Manifest, shape: tuple[int, int, int], settings: DataSettings) -> DecodeChunk:
    def decode(images: Images, part: slice) -> tuple[Failures, bool]:
        failures, is_permanent = {}, True
        for index in range(part.start, part.stop):
            entry, path = manifest.entries[index], as_text(manifest.entries[index].path)
            try:
                images[index] = read_image(manifest.open(entry), path, shape[2], IMAGE_FORMATS, shape[:2], settings.resize)
            except DataError as error:
                failures[index] = str(error).removeprefix(f"{path}: ")
                is_permanent &= not isinstance(error, AccessError)
        return failures, is_permanent

    return decode


def _load_archive(path: Path, settings: DataSettings) -> CustomData:
    archive = Archive(path)
    height, width, channels = archive.image_shape
    shape, notes = choose_shape([ImageHeader("", PIL_MODES[channels], height, width)], settings)

    def decode(images: Images, part: slice) -> tuple[Failures, bool]:
        for index, pixels in zip(range(part.start, part.stop), archive.read(part), strict=True):
            images[index] = convert_pixels(pixels, shape, settings.resize)
        return {}, True

    cache = DecodeCache(path, hashlib.sha256(stamp(path.stat()).encode()).hexdigest()[:32])
    variant = _variant(shape, settings)
    images, _ = cache.images(variant, (len(archive.split), *shape), decode, is_sequential=True)
    cache.remove_stale()
    files = tuple(f"{split or 'images'}/{index}" for split, n in Counter(archive.split).items() for index in range(n))
    dataset, split = ImageDataset(images, archive.labels, archive.classes, files), np.array(archive.split, object)
    unlabelled = [
        Problem(f"{path}: {files[index]}", "no label", "has no label; leave it out")
        for index in np.flatnonzero(~archive.labelled)
    ]
    if unlabelled:
        dataset, split = dataset.take(np.flatnonzero(archive.labelled)), split[archive.labelled]
    given = tuple(split.tolist())
    problems = (*unlabelled, *class_problems(path, dataset, given), *_one_colour(cache, variant, path, dataset))
    return CustomData(dataset, given, problems, (*notes, *archive.notes, *cache.notes), (), cache, variant)


def _variant(shape: tuple[int, int, int], settings: DataSettings) -> str:
    return f"{'x'.join(map(str, shape))}-{settings.resize}"


def _raise_problems(name: str, problems: Sequence[Problem]) -> None:
    """Raises DataError that lists the problems, the most severe first."""
    lines = [f"{len(problems):,} {'problems' if len(problems) > 1 else 'problem'}; nothing was started"]
    ordered = sorted(problems, key=lambda problem: problem.severity != "error")
    lines += [f"  {problem}" for problem in ordered[:MAX_PROBLEMS_SHOWN]]
    if len(problems) > MAX_PROBLEMS_SHOWN:
        lines.append(f"  and {len(problems) - MAX_PROBLEMS_SHOWN:,} more: sprintnet check {name}")
    if all(problem.severity == "skippable" for problem in problems):
        lines.append("fix these files, or leave them out: data.skip_bad=true")
    raise DataError(f"data.name={name}: " + "\n".join(lines))
