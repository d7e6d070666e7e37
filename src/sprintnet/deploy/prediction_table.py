"""Predictions for many image files as one table, CSV or Parquet, written in chunks: an interrupted command continues."""

import csv
import hashlib
import io
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sprintnet.deploy.predict_files import Listing, csv_columns, predict_files, write_csv
from sprintnet.deploy.predictor import Predictor
from sprintnet.errors import SettingsError
from sprintnet.progress import track
from sprintnet.runs.io import remove_temporary, write_atomic

CHUNK = 10_000  # files whose predictions are written at a time
SUFFIXES = (".csv", ".parquet")


def require_format(output: Path) -> None:
    """Raises SettingsError for a file that is neither CSV nor Parquet."""
    if output.suffix not in SUFFIXES:
        raise SettingsError(f"--output {output}: must end in {' or '.join(SUFFIXES)}")
    if output.suffix == ".parquet":
        import pyarrow  # noqa: F401  (missing: said before the predictions)
    if not output.absolute().parent.is_dir():
        raise SettingsError(f"--output {output}: the folder {output.parent} does not exist; create it first")


def write_table(
    predictor: Predictor,
    files: Callable[[], Iterator[Path]],
    output: Path,
    identity: Any,
    listing: Listing,
    batch: int,
) -> tuple[int, int]:
    """Writes a table with a row for each of the files, which `files` yields from the start each time it is called.

    The columns are those of `write_csv`. Chunks of the table are kept in a hidden
    folder beside it until it is complete; they are taken again if `identity`, which can be JSON, is the same: the model, and
    whatever else the predictions depend on. A complete table of the same command is kept. Returns the numbers of files and of
    those that could not be read. Raises SettingsError where the file exists and is something else.
    """
    digest = hashlib.sha256(json.dumps([identity, listing]).encode()).hexdigest()[:16]
    folder = output.with_name(f".{output.name}.{digest}.chunks")
    record = output.with_name(f".{output.name}.json")  # of which command the table is
    command = {"digest": digest, "files_sha256": _digest_of(files())}
    if output.exists() and not folder.exists():  # else it was joined, and the command killed before its end
        kept = json.loads(record.read_text("utf-8")) if record.exists() else {}
        if kept != {**command, "bytes": output.stat().st_size}:
            rule = "exists, and this command has not written it; remove it, or name another file"
            raise SettingsError(f"--output {output}: {rule}")
        print(f"{output}: already written by this command; remove it where images have changed")
        return _count_files(output)
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / ".lock").acquire(blocking=False):
            remove_temporary(folder)
            total = sum(1 for _ in files())
            chunks = [folder / f"{number:06d}.csv" for number in range(max(1, -(-total // CHUNK)))]
            waiting, done = files(), 0
            for chunk in chunks:
                part = list(itertools.islice(waiting, CHUNK))
                if not _has_rows_of(chunk, part):
                    rows = track(predict_files(predictor, part, listing, batch), total, "predicting", done)
                    text = io.StringIO()
                    write_csv(rows, listing, text)
                    write_atomic(chunk, text.getvalue().encode("utf-8", "surrogateescape"))
                done += len(part)
            _join(chunks, output, listing)
            write_atomic(record, json.dumps({**command, "bytes": output.stat().st_size}))
            unreadable = sum(bool(row["error"]) for chunk in chunks for row in _rows(chunk))
            shutil.rmtree(folder)
    except Timeout:
        raise SettingsError(f"--output {output}: another process is writing it; wait for it, or name another file") from None
    return total, unreadable


def _digest_of(files: Iterator[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _count_files(output: Path) -> tuple[int, int]:
    """Returns the numbers of files in a table that is complete, and of the unreadable ones."""
    if output.suffix == ".parquet":
        from pyarrow import parquet

        column = parquet.read_table(output, columns=["error"])["error"]
        return len(column), len(column) - column.null_count
    counts = Counter(bool(row["error"]) for row in _rows(output))
    return counts.total(), counts[True]


def _has_rows_of(chunk: Path, files: list[Path]) -> bool:
    """Returns whether an earlier command has written the rows of these files."""
    return chunk.is_file() and [row["file"] for row in _rows(chunk)] == list(map(str, files))


def _rows(chunk: Path) -> Iterator[dict[str, str]]:
    with chunk.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield from csv.DictReader(file)


def _join(chunks: list[Path], output: Path, listing: Listing) -> None:
    """Replaces the table by the rows of all chunks."""
    temporary = output.with_name(f".{output.name}.partial")
    try:
        if output.suffix == ".parquet":
            _write_parquet(temporary, chunks, listing)
        else:
            with temporary.open("wb") as file:
                for number, chunk in enumerate(chunks):
                    header, _, rows = chunk.read_bytes().partition(b"\n")
                    file.write(rows if number else header + b"\n" + rows)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(file: Path, chunks: Sequence[Path], listing: Listing) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = csv_columns(listing)
    numbers = {name for name in columns if name.startswith(("confidence", "probability_"))}
    schema = pyarrow.schema([(name, pyarrow.float32() if name in numbers else pyarrow.string()) for name in columns])

    def value(name: str, text: str) -> float | str | None:
        if name in numbers:
            return float(text) if text else None
        # file names need not be valid text, which the format asks for
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") or None

    with parquet.ParquetWriter(file, schema) as writer:
        for chunk in chunks:
            rows = list(_rows(chunk))
            writer.write_table(pyarrow.table({name: [value(name, row[name]) for row in rows] for name in columns}, schema))
