"""The run folder: the only contract between making and showing. Paths, reading what is in it."""

import csv
import datetime
import io
import json
import shlex
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprintnet.errors import SettingsError
from sprintnet.runs.io import write_rows

TRAIN_FOLDER = Path("runs") / "train"
STUDY_FOLDER = Path("runs") / "study"
LR_FOLDER = Path("runs") / "lr_find"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; `path`, given as text or Path, need not exist yet."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def config(self) -> Path:
        """The resolved settings (TOML)."""
        return self.path / "config.toml"

    @property
    def resolved(self) -> Path:
        """The settings as fitted to the data, where that changed any; its head says what and why (TOML)."""
        return self.path / "resolved.toml"

    @property
    def environment(self) -> Path:
        """Commit, versions, hardware, threads, precision, digest of the data (JSON)."""
        return self.path / "environment.json"

    @property
    def results(self) -> Path:
        """One row an epoch (CSV)."""
        return self.path / "results.csv"

    @property
    def metrics(self) -> Path:
        """The final figures (JSON); its presence says that the run is finished."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """Logits and labels of the evaluated images (NumPy archive)."""
        return self.path / "predictions.npz"

    @property
    def predictions_csv(self) -> Path:
        """One row an evaluated image: true and predicted class, confidence, margin, loss (CSV)."""
        return self.path / "predictions.csv"

    @property
    def splits(self) -> Path:
        """Which image was for training, for validation, for testing (CSV)."""
        return self.path / "splits.csv"

    @property
    def data(self) -> Path:
        """What was chosen about the data, and what was left out (JSON)."""
        return self.path / "data.json"

    @property
    def test_access(self) -> Path:
        """When the test set was looked at, and what was seen (CSV)."""
        return self.path / "test_access.csv"

    @property
    def lr_finder(self) -> Path:
        """The curves of the learning-rate finder and what they suggest (JSON)."""
        return self.path / "lr_finder.json"

    @property
    def artifacts(self) -> Path:
        """Pictures and curves that figures need and no other file holds (NumPy archive)."""
        return self.path / "artifacts.npz"

    @property
    def network(self) -> Path:
        """The layers with their shapes and parameters (JSON)."""
        return self.path / "network.json"

    @property
    def explanations(self) -> Path:
        """Grad-CAM maps and the images under them (NumPy archive)."""
        return self.path / "explanations.npz"

    @property
    def file_explanations(self) -> Path:
        """The same over image files that a user named (NumPy archive)."""
        return self.path / "file_explanations.npz"

    @property
    def label_errors(self) -> Path:
        """The likeliest label errors with their pictures (NumPy archive); all of them, a row each, in a CSV file beside it."""
        return self.path / "label_errors.npz"

    @property
    def plots(self) -> Path:
        """The folder of figures."""
        return self.path / "plots"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        """The page that shows all of it (HTML)."""
        return self.path / "report.html"

    @property
    def export(self) -> Path:
        """The folder of files to ship."""
        return self.path / "export"

    @property
    def weights(self) -> Path:
        """The trained weights, with readable JSON metadata (safetensors)."""
        return self.path / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The complete state of an unfinished run (safetensors)."""
        return self.path / "checkpoint.safetensors"

    @property
    def log_text(self) -> Path:
        """What was printed."""
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the process that trains here."""
        return self.path / ".lock"

    def log(self, line: str) -> None:
        """Prints a line and appends it to log.txt."""
        print(line, flush=True)
        with self.log_text.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line + "\n")


def new_run(name: str, *, exact: bool, resume: bool, parent: Path = TRAIN_FOLDER) -> RunFolder:
    """Returns the folder for a run called `name`, which is not made yet; one in which no run has begun counts as free.

    A fresh run takes `name`, or `name-2`, `name-3`, ... where that exists; resuming takes the newest of them. With `exact`
    (the user chose the name) nothing is counted on: a fresh run refuses a folder that exists.
    """
    if Path(name).name != name or name in ("", ".", "..") or set(name) & set("\\\0"):
        raise SettingsError(f"--name {name!r}: must be one folder name; the run is kept under {parent}")
    taken = [RunFolder(parent / name)]
    while not exact and _has_started(numbered := RunFolder(parent / f"{name}-{len(taken) + 1}")):
        taken.append(numbered)
    if resume or not _has_started(taken[0]):
        return taken[-1]
    if exact:
        raise SettingsError(f"--name {name}: {taken[0].path} exists; choose another name, or continue that run with --resume")
    return RunFolder(parent / f"{name}-{len(taken) + 1}")


def _has_started(run: RunFolder) -> bool:
    """Returns whether a run, or the first of a study, has settings there."""
    return run.config.exists() or any(run.path.glob("seed-*/config.toml"))


def open_run(path: str | Path) -> RunFolder:
    """Returns the folder of a finished run; raises SettingsError naming what is missing and how to make it."""
    run = RunFolder(Path(path))
    if not run.path.is_dir():
        raise SettingsError(f"{path}: there is no such run folder; `sprintnet train` makes them under {TRAIN_FOLDER}")
    missing = [file.name for file in (run.config, run.weights) if not file.is_file()]
    if missing:
        raise SettingsError(
            f"{path}: {' and '.join(missing)} missing; the run is unfinished or damaged: "
            "continue it with the command that made it and --resume"
        )
    return run


def read_arrays(path: Path) -> dict[str, Any]:
    """Returns the arrays that `write_arrays` wrote, by name; raises SettingsError for a missing or damaged file."""
    import numpy as np  # not above: mistakes in a command are found before it loads

    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from None


def read_json(path: Path) -> dict[str, Any]:
    """Returns what `write_json` wrote; raises SettingsError for a missing or damaged file."""
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    return value


def log_test_access(run: RunFolder, by: str, figures: Mapping[str, Any]) -> None:
    """Adds a row to the run's test_access.csv: when, by which command, how many images, how many of them right."""
    rows: list[Mapping[str, Any]] = [*read_rows(run.test_access)] if run.test_access.exists() else []
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_rows(run.test_access, [*rows, {"time": now, "by": by, "images": figures["images"], "accuracy": figures["accuracy"]}])


SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}


def evaluation_split(by_split: Mapping[str, Any]) -> str:
    """Returns by which split a run is judged: test, or val where its own test set is not to be looked at."""
    return "test" if "test" in by_split else "val"


def dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings under dotted keys, as overrides name them."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns what `write_rows` wrote, as text; raises SettingsError for a missing or damaged file."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(path, error) from None
    if not rows or any(None in row or None in row.values() for row in rows):
        raise _unreadable(path, ValueError("not whole rows"))
    return rows


@contextmanager
def require_consistent(run: RunFolder) -> Iterator[None]:
    """Raises SettingsError where the block finds that the run's files, readable as they are, lack what they should hold."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{run.path}: its files do not fit together ({error!r}); repeat the run: {rerun_command(run)}"
        ) from None


def rerun_command(run: RunFolder) -> str:
    """Returns the command that repeats a run, for a shell."""
    return shlex.join(["sprintnet", "train", str(run.config)])


def _unreadable(path: Path, error: Exception) -> SettingsError:
    state = "missing" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
    run = RunFolder(path.parent)
    if path in (run.explanations, run.file_explanations):
        remedy = shlex.join(["sprintnet", "explain", str(run.path)])
    elif path == run.label_errors:
        remedy = shlex.join(["sprintnet", "label-errors", str(run.path), "--resume"])
    elif path == run.lr_finder:
        remedy = f"find it again: {shlex.join(['sprintnet', 'lr-find', str(run.config)])}, or begin another run"
    elif run.checkpoint.exists():
        remedy = "the run is unfinished: remove the file and repeat the run's command with --resume"
    else:
        remedy = f"repeat the run: {rerun_command(run)}"
    return SettingsError(f"{path}: {state}; {remedy}")
