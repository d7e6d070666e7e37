"""Folders of images: <class>/*, or train/<class>/* with val/<class>/* and test/<class>/*."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from sprintnet.data.custom.conventions import as_text, class_name, is_unknown
from sprintnet.data.custom.manifest import Manifest, ManifestEntry, Problem, Severity, stamp
from sprintnet.data.dataset import LABEL_SEPARATOR
from sprintnet.data.image_files import IMAGE_FORMATS, IMAGE_SUFFIXES
from sprintnet.data.splits import SPLIT_ALIASES, SPLITS

SYSTEM_FILES = (
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "picasa.ini",
    "icon\r", "lost+found", "system volume information",
)  # fmt: skip
"""Left behind by systems and photo tools: ignored and counted, like hidden files."""
NON_IMAGE_SUFFIXES = (
    ".csv", ".html", ".json", ".log", ".md", ".pdf", ".txt", ".xml", ".yaml", ".yml", ".xmp", ".aae", ".thm", ".ini", ".db",
    ".lnk", ".url", ".py", ".ipynb", ".toml", ".npz", ".mov", ".mp4",
)  # fmt: skip
"""Suffixes of files that cannot be meant as images: they are noted; other files that are no images are problems."""
OUTPUT_FILES = ("*/*/config.toml", "*/*/seed-*/config.toml", "*/*/.lock")  # of commands that were given from inside the data
MAX_SEARCH_DEPTH = 3


def read_folder(root: Path) -> Manifest:
    """Returns the images of <class>/*, or of train/<class>/*, val/<class>/* and test/<class>/*, by split, class and name."""
    scan = _Scan()
    top = list(scan.entries(root))
    splits = _split_folders([entry for entry, status in top if stat.S_ISDIR(status.st_mode)], scan)
    entries: list[ManifestEntry] = []
    empty: list[os.DirEntry[str]] = []
    spelt: dict[tuple[str, str], str] = {}  # split folder and class -> the name of its folder
    for name, split in splits.items() or [("", "")]:
        inside = list(scan.entries(root / name)) if name else top
        if name and inside and not any(stat.S_ISDIR(status.st_mode) for _, status in inside):
            text = "has no class folders, so its images have no label; move it elsewhere (predict takes them), or sort them"
            scan.problems.append(Problem(as_text(root / name), "unlabelled split", text))
            continue
        if not name and inside and not any(stat.S_ISDIR(status.st_mode) for _, status in inside):
            text = "has no class folders; sort its images into <class>/, or name the folder above if it is itself a class"
            scan.problems.append(Problem(as_text(root), "no class folders", text, "error"))
            continue
        for folder, status in inside:
            if not stat.S_ISDIR(status.st_mode):
                scan.report(folder, "stray file", "is in no class folder; move it into <class>/, or remove it")
            elif LABEL_SEPARATOR in folder.name:
                scan.report(folder, "class name", f"contains {LABEL_SEPARATOR}, which separates labels; rename it", "error")
            elif is_unknown(class_name(folder.name)):
                text = "is a name that tables use for images without a label; rename it"
                scan.report(folder, "class name", text, "error")
            elif (other := spelt.setdefault((name, class_name(folder.name)), folder.name)) != folder.name:
                text = f"is the same class as {other!r} beside it; join them, or rename one"
                scan.report(folder, "class name", text, "error")
            else:
                found = _images_in(folder, split, scan)
                entries += found
                empty += [folder] * (not found and folder.path not in scan.unreadable)
    classes = {entry.label for entry in entries}
    for folder in empty:  # a class may lack images in one split; without any, it is not a class
        severity: Severity = "note" if class_name(folder.name) in classes else "skippable"
        scan.report(folder, "empty class", "contains no image; add some, or remove it", severity)
    for entry, _ in top if splits else ():
        if entry.name not in splits:
            scan.report(entry, "beside the splits", f"is beside {next(iter(splits))}/; move it into a split, or remove it")
    if splits and "train" not in splits.values():
        text = f"has {next(iter(splits))}/ but no train/; add it"
        scan.problems.append(Problem(as_text(root), "no training images", text, "error"))
    if not entries and (inner := _inner_dataset(root)):
        scan.problems.append(
            Problem(as_text(root), "outer folder", f"its class folders lie deeper; did you mean {inner}?", "error")
        )
    if scan.non_images:
        scan.notes.append(f"files ignored since they are no images: {scan.non_images:,} (sprintnet check lists them)")
    if scan.hidden_files:
        scan.notes.append(f"hidden, system and output files ignored: {scan.hidden_files:,}")
    return Manifest(root, tuple(entries), tuple(scan.problems), tuple(scan.notes))


def walk_images(root: Path) -> Iterator[Path]:
    """Yields the files in a folder, and in those inside it, that training would see, by path: not those that are hidden, were
    left behind by a system, or cannot be meant as images. What cannot be accessed comes last."""
    scan, seen = _Scan(), set[tuple[int, int]]()

    def walk(folder: Path) -> Iterator[Path]:
        for entry, status in scan.entries(folder):
            if stat.S_ISDIR(status.st_mode):
                if (place := (status.st_dev, status.st_ino)) not in seen:  # links may lead back
                    seen.add(place)
                    yield from walk(Path(entry.path))
            elif stat.S_ISREG(status.st_mode) and _suffix(entry.name) not in NON_IMAGE_SUFFIXES:
                yield Path(entry.path)

    status = root.stat()
    seen.add((status.st_dev, status.st_ino))
    yield from walk(root)
    yield from map(Path, sorted(scan.unreadable))  # reading them gives the message


def _inner_dataset(folder: Path, depth: int = 1) -> Path | None:
    """Returns a folder inside this one, not far below, that holds folders of images."""
    found = (Path(child.path) for child, status in _Scan().entries(folder) if stat.S_ISDIR(status.st_mode))
    children = sorted(found, key=lambda child: "train" not in child.name.lower())
    for child in children:
        inside = [entry for entry, status in _Scan().entries(child) if stat.S_ISDIR(status.st_mode)]
        if any(_suffix(file.name) in IMAGE_SUFFIXES for entry in inside for file, _ in _Scan().entries(Path(entry.path))):
            return folder if child.name.lower() in SPLIT_ALIASES else child
    below = (_inner_dataset(child, depth + 1) for child in children) if depth < MAX_SEARCH_DEPTH else ()
    return next(filter(None, below), None)


def _split_folders(folders: Sequence[os.DirEntry[str]], scan: "_Scan") -> dict[str, str]:
    """Returns the splits by folder name, train first; nothing if the folders are classes. Beside other folders, train/
    is a split only if it contains folders and no image; otherwise it is a class of that name."""
    named = [folder for folder in folders if folder.name.lower() in SPLIT_ALIASES]
    splits = named if len(named) == len(folders) else [folder for folder in named if _contains_classes(folder)]
    classes = [as_text(folder.name) for folder in named if folder not in splits]
    scan.notes += [f"{name}/ is read as a class, not as a split: it is beside other classes" for name in classes]
    found = {folder.name: SPLIT_ALIASES[folder.name.lower()] for folder in splits}
    for split in SPLITS:
        if len(names := [as_text(name) for name, part in found.items() if part == split]) > 1:
            scan.notes.append(f"{', '.join(f'{name}/' for name in names)} are read as one split, {split}")
    return dict(sorted(found.items(), key=lambda item: SPLITS.index(item[1])))


def _contains_classes(folder: os.DirEntry[str]) -> bool:
    children = [child for child, _ in _Scan().entries(Path(folder.path))]
    return any(child.is_dir() for child in children) and not any(_suffix(child.name) in IMAGE_SUFFIXES for child in children)


def _images_in(folder: os.DirEntry[str], split: str, scan: "_Scan") -> list[ManifestEntry]:
    images = []
    for file, status in scan.entries(Path(folder.path)):
        if stat.S_ISDIR(status.st_mode):
            scan.report(file, "nested folder", "is a folder within a class; move its images up, or remove it")
        elif not stat.S_ISREG(status.st_mode):
            scan.report(file, "no file", "is a pipe, socket or device; remove it")
        elif not _suffix(file.name):
            scan.report(file, "other file", f"has no suffix; rename it, such as to {as_text(file.name)}.png, or remove it")
        elif _suffix(file.name) not in IMAGE_SUFFIXES:
            scan.report(file, "other file", f"is none of {', '.join(IMAGE_FORMATS)}; convert or remove it")
        else:
            images.append(ManifestEntry(file.path, class_name(folder.name), split, "", stamp(status)))
    return images


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a fifth of Path's time


def _is_output(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is the folder of runs, of a command that was given from inside the data."""
    return entry.name == "runs" and any(any(Path(entry.path).glob(pattern)) for pattern in OUTPUT_FILES)


class _Scan:
    """Lists folders and collects problems and notes."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.unreadable: set[str] = set()
        self.hidden_files = self.non_images = 0

    def entries(self, folder: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
        """Yields the entries of a folder by name; links are followed, a loop of links is a problem."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable.add(str(folder))
            self.problems.append(Problem(as_text(folder), "unreadable", f"{error.strerror}; make it readable, or remove it"))
            return
        for entry in found:
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FILES or _is_output(entry):
                self.hidden_files += 1
                continue
            try:
                status = entry.stat()
            except OSError as error:
                self.unreadable.add(entry.path)
                self.report(entry, "unreadable", f"{error.strerror}; fix or remove it")
                continue
            yield entry, status

    def report(self, entry: os.DirEntry[str], kind: str, text: str, severity: Severity = "skippable") -> None:
        """Adds a problem, a note for a file that cannot be meant as an image."""
        if _suffix(entry.name) in NON_IMAGE_SUFFIXES and entry.is_file():
            self.non_images += 1
            severity = "note"
        self.problems.append(Problem(as_text(entry.path), kind, text, severity))
