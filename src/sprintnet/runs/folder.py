"""The run folder: the only contract between training and reporting. Its files, and functions that read them."""

import csv
import datetime
import io
import json
import os
import shlex
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, SoftFileLease, Timeout

from sprintnet.errors import ArgumentError, SettingsError, nearest
from sprintnet.progress import say
from sprintnet.runs import checksums
from sprintnet.runs.io import write_rows
from sprintnet.runs.lease import lease_of

TRAIN_FOLDER, STUDY_FOLDER = Path("runs") / "train", Path("runs") / "study"
LR_FOLDER, TUNE_FOLDER = Path("runs") / "lr_find", Path("runs") / "tune"
MAX_NAME_BYTES = 200  # file systems allow 255; names are numbered
SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}


class _File:
    """A path in a run folder."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, run: "RunFolder", owner: type) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; `path`, given as text or Path, need not exist yet."""

    path: Path
    is_quiet: bool = False  # whether `log` prints nothing
    claim: SoftFileLease | None = field(default=None, repr=False, compare=False)
    """The lease of a folder that was reserved for this run: released with this object, or when training ends."""

    config = _File("config.toml")  # the settings as requested; training them again repeats the run
    resolved = _File("resolved.toml")  # the same with `auto` and `lr_find` resolved; its comments give the reasons
    environment = _File("environment.json")  # commit, versions, hardware, threads, precision, digest of the data
    results = _File("results.csv")  # a row an epoch; an ensemble, or a run of no epochs, has none
    head_fit = _File("head_fit.json")  # how the last layer of a pretrained network was fitted
    metrics = _File("metrics.json")  # the final metrics; the run is finished once it is there
    predictions = _File("predictions.npz")  # logits and labels of the evaluated images
    predictions_csv = _File("predictions.csv")  # a row for each of them
    splits = _File("splits.csv")  # the split of every image
    data = _File("data.json")  # what was chosen about the data, and what was left out
    test_access = _File("test_access.csv")  # when the test set was evaluated, and by which command
    lr_finder = _File("lr_finder.json")  # the curves of the learning-rate finder and its suggestions
    artifacts = _File("artifacts.npz")  # images and curves that figures need and no other file holds
    network = _File("network.json")  # the layers with their shapes and parameters
    explanations = _File("explanations.npz")  # Grad-CAM maps of errors, or of the least confident predictions
    file_explanations = _File("file_explanations.npz")  # Grad-CAM maps of image files
    label_errors = _File("label_errors.npz")  # the likeliest label errors with their images; all of them in a CSV beside it
    plots = _File("plots")  # the folder of figures
    tensorboard = _File("tensorboard")  # the folder of TensorBoard's event files
    report = _File("report.html")
    export = _File("export")  # the folder of files to ship
    members = _File("members.json")  # of an ensemble: the study, and its runs
    weights = _File("weights.safetensors")
    checkpoint = _File("checkpoint.safetensors")  # the complete state of an unfinished run
    log_text = _File("log.txt")  # what was printed
    lock = _File(".lock")  # who trains here; renewed while that process lives
    test_access_lock = _File(".test_access.lock")  # held while a row is added to test_access.csv
    export_lock = _File(".export.lock")  # held by the process that exports

    @property
    def final_files(self) -> tuple[Path, ...]:
        """The files that training leaves behind beside metrics.json and no later command changes; some only on request."""
        settings = (self.config, self.resolved, self.environment, self.data, self.splits, self.lr_finder)
        results = (self.results, self.head_fit, self.predictions, self.predictions_csv, self.artifacts, self.network)
        return (*settings, *results, self.members, self.weights)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "claim": None}  # a lock belongs to one process: models with their runs can be copied and pickled

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def lease(self) -> SoftFileLease:
        """Returns a lease of the folder, not yet acquired, for the one process that may train here."""
        return lease_of(self.lock)

    def require_claim(self) -> None:
        """Raises SettingsError where another process has taken this one, stopped for long, for dead and trains here now."""
        if self.claim and self.claim.compromise:
            raise SettingsError(f"{self.path}: another process has continued the run meanwhile; this one ends")

    def log(self, line: str) -> None:
        """Prints a line and appends it to log.txt."""
        if not self.is_quiet:
            say(line)
        with self.log_text.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line + "\n")


def new_run(name: str, *, exact: bool, resume: bool, parent: Path = TRAIN_FOLDER) -> RunFolder:
    """Returns the folder for a run called `name`; a folder in which no run has started counts as free.

    A new run takes `name`, or `name-2`, `name-3`, ... where that is taken, and reserves it: of several processes at once each
    gets its own. Resuming takes the newest of them. With `exact` (the user chose the name) no number is added: a new run
    refuses a folder that is taken.
    """
    is_name = Path(name).name == name and name not in ("", ".", "..") and name.isprintable() and "\\" not in name
    if not is_name or len(os.fsencode(name)) > MAX_NAME_BYTES:
        rule = f"must be a single folder name of at most {MAX_NAME_BYTES} bytes; the run is kept under {parent}"
        raise ArgumentError("name", name, rule)
    numbered = (RunFolder(parent / (name if number == 1 else f"{name}-{number}")) for number in count(1))
    if resume and not exact:
        return [next(numbered), *takewhile(_has_started, numbered)][-1]
    if exact:
        run = next(numbered)
        if not resume and _has_started(run):
            raise ArgumentError("name", name, f"{run.path} exists; choose another name, or resume it")
        return run
    return next(reserved for run in numbered if (reserved := _reserve(run)))


def _reserve(run: RunFolder) -> RunFolder | None:
    """Returns the folder with a lease of it, or None where a run has started or another process is about to start one."""
    if _has_started(run):
        return None
    run.path.mkdir(parents=True, exist_ok=True)
    lease = run.lease()
    try:
        lease.acquire(blocking=False)
    except Timeout:
        return None
    if _has_started(run):  # and has ended meanwhile
        lease.release()
        return None
    return RunFolder(run.path, claim=lease)


def train_folder(recipe: str | Path, name: str | None, *, resume: bool) -> RunFolder:
    """Returns the folder that a recipe is trained in: a new one, or one to resume. RUN/config.toml resumes RUN."""
    path = Path(recipe)
    if resume and not name and path.name == "config.toml" and path.is_file():
        return RunFolder(path.parent)
    return new_run(name or run_name(recipe), exact=bool(name), resume=resume)


def run_name(recipe: str | Path) -> str:
    """Returns the name of a recipe's runs: its own, or the run folder's that holds the file."""
    path = Path(recipe)
    return path.resolve().parent.name if path.name in ("config.toml", "resolved.toml") else path.stem


def _has_started(run: RunFolder) -> bool:
    """Returns whether a run, or the first run of a study, has settings there."""
    return run.config.exists() or any(run.path.glob("*/config.toml"))


def find_run(word: str | Path, parent: Path = TRAIN_FOLDER) -> Path:
    """Returns a folder that is given by its path, or by its name in `parent`.

    Raises SettingsError with the nearest name where there is none, and for a study in the place of a run.
    """
    found = [path for path in (Path(word), parent / word) if path.is_dir()]
    if not found:
        there = sorted(file.parent.name for file in parent.glob("*/config.toml"))
        hint = f"{parent.absolute()} has {', '.join(there) or f'none; `sprintnet {parent.name}` creates them there'}"
        if near := nearest(Path(word).name, there):
            hint = f"did you mean {parent / near}?"
        hint = "it is a file; name the folder of its run" if Path(word).is_file() else hint
        raise SettingsError(f"{word}: no such {'run' if parent == TRAIN_FOLDER else 'study'} folder; {hint}")
    path = next((path for path in found if RunFolder(path).config.is_file()), found[0])
    if parent == TRAIN_FOLDER and (seeds := sorted(path.glob("*/config.toml"))):
        raise SettingsError(f"{word}: is the folder of a study, not of a run; name one of its runs, such as {seeds[0].parent}")
    return path


def open_run(word: str | Path) -> RunFolder:
    """Returns the folder of a finished run, given by path or name; raises SettingsError that names what is missing."""
    run = RunFolder(find_run(word))
    if missing := [file.name for file in (run.config, run.weights, run.metrics) if not file.is_file()]:
        state = "the run is unfinished: continue it with its command and --resume"
        if run.metrics.is_file() or (run.results.is_file() and (run.path / checksums.FILE).is_file()):
            state = "the run is damaged: restore it from a copy, or train again under another --name"
        elif run.members.is_file():
            state = f"the ensemble is unfinished; make it again: {rerun_command(run)}"
        elif len(missing) == 3:
            state = "it is not a run folder"
        raise SettingsError(f"{run.path}: {', '.join(missing)} missing; {state}")
    for file in filter(Path.exists, run.final_files):
        with _readable(file):
            pass
    return run


def read_arrays(path: Path) -> dict[str, Any]:
    """Returns the arrays that `write_arrays` wrote, by name; raises SettingsError for a missing or damaged file."""
    import numpy as np  # not above: mistakes in a command are found before it loads

    with _readable(path), np.load(path) as archive:
        return dict(archive)


def read_json(path: Path) -> dict[str, Any]:
    """Returns what `write_json` wrote; raises SettingsError for a missing or damaged file."""
    with _readable(path):
        return cast(dict[str, Any], json.loads(path.read_text("utf-8")))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns what `write_rows` wrote, as text; raises SettingsError for a missing or damaged file."""
    with _readable(path):
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), strict=True))
        if not rows or any(None in row or None in row.values() for row in rows):
            raise ValueError("incomplete rows")
        return rows


def read_epochs(run: RunFolder) -> list[dict[str, str]]:
    """Returns the rows of results.csv, as text: one an epoch, none of an ensemble or of a run of no epochs."""
    has_none = not run.results.exists() and (run.members.exists() or run.head_fit.exists())
    return [] if has_none else read_rows(run.results)


def log_test_access(run: RunFolder, command: str, metrics: Mapping[str, Any]) -> None:
    """Adds a row to the run's test_access.csv: time, command, number of images, accuracy."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    row = {"time": now, "command": command, "images": metrics["images"], "accuracy": metrics["accuracy"]}
    with FileLock(run.test_access_lock):  # of two processes at once, both rows are kept
        rows: list[Mapping[str, Any]] = [*read_rows(run.test_access)] if run.test_access.exists() else []
        write_rows(run.test_access, [*rows, row])


def evaluation_split(by_split: Mapping[str, Any]) -> str:
    """Returns the split whose metrics are a run's headline: test, or val where the test set is left untouched."""
    return "test" if "test" in by_split else "val"


def dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings under dotted keys, as overrides name them."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


@contextmanager
def require_consistent(run: RunFolder) -> Iterator[None]:
    """Raises SettingsError where the block finds that the run's files, though readable, lack what they should hold."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SettingsError(f"{run.path}: inconsistent files ({error!r}); repeat the run: {rerun_command(run)}") from None


def rerun_command(run: RunFolder) -> str:
    """Returns the command that repeats a run, or makes an ensemble again, quoted for a shell."""
    if run.members.exists():
        study = "STUDY"
        with suppress(OSError, ValueError, KeyError, TypeError):  # it may be what is damaged
            study = json.loads(run.members.read_text("utf-8"))["study"]
        return shlex.join(["sprintnet", "ensemble", study])
    return shlex.join(["sprintnet", "train", str(run.config)])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises SettingsError with a remedy where the block finds the file of a run missing or damaged."""
    try:
        checksums.require_unchanged(path)
        yield
    except (OSError, ValueError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error) as error:
        state = "missing" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
    else:
        return
    run = RunFolder(path.parent)
    if path == run.config:
        remedy = "restore it, or repeat the run by its first command, which environment.json names"
    elif path in (run.explanations, run.file_explanations):
        remedy = shlex.join(["sprintnet", "explain", str(run.path)])
    elif path == run.label_errors:
        remedy = shlex.join(["sprintnet", "label-errors", str(run.path), "--resume"])
    elif path == run.lr_finder:
        remedy = f"find it again: {shlex.join(['sprintnet', 'lr-find', str(run.config)])}, or start another run"
    elif run.checkpoint.exists():
        remedy = "the run is unfinished: remove the file and repeat the run's command with --resume"
    else:
        remedy = f"repeat the run: {rerun_command(run)}"
    raise SettingsError(f"{path}: {state}; {remedy}")
