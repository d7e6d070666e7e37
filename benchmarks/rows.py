"""Rows of benchmarks/results as the tables show them: the newest of each processor, and the names of processors and commits."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sprintnet.config import load_config
from sprintnet.runs.environment import PROCESSOR_NAMES
from sprintnet.runs.folder import dotted

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]

UNRECORDED = {
    "AMD EPYC": "avx512_bf16",
    "Intel(R) Xeon(R) Processor": "amx_bf16",
    "Intel(R) Xeon(R) Processor, as avx512 only": "avx512f",
    "Intel(R) Xeon(R) Processor, as avx2 only": "avx2",
}
"""Kinds of the processors of rows that are older than their key `processor`."""


Key = str | Callable[[Row], object]
"""A key of a row, or what is computed from it."""


def newest(name: str, *keys: Key, having: str = "date") -> list[Row]:
    """Returns the rows of a result file that have a value under `having`; of equal hardware and keys only the newest."""
    return [rows[-1] for rows in of_newest_code(name, *keys, having=having)]


def of_newest_code(name: str, *keys: Key, having: str = "date") -> list[list[Row]]:
    """Returns, for each hardware and equal values under the keys, the rows of the code that was measured last.

    Rows without a value under `having` are left out.
    """
    path = RESULTS / f"{name}.jsonl"
    kinds: dict[tuple[object, ...], list[Row]] = {}
    for row in map(json.loads, path.read_text("utf-8").splitlines() if path.exists() else ()):
        if not row.get(having):
            continue
        values = (key(row) if callable(key) else row[key] for key in keys)
        rows = kinds.setdefault((hardware(row), *values), [])
        if rows and code(rows[-1]) != code(row):
            rows.clear()
        rows.append(row)
    return list(kinds.values())


def code(row: Row) -> str | None:
    """Returns the digest of the code that was measured, which later commits may share; of older rows the commit."""
    return row.get("code_sha256") or row["commit"]


def processor(row: Row) -> str | None:
    """Returns the kind of a row's processor, a key of PROCESSOR_NAMES; None for a GPU, or a processor without kernels."""
    return None if row.get("gpu") else row.get("processor") or UNRECORDED.get(row["cpu"])


def hardware(row: Row) -> str:
    """Returns the processor or GPU of a row, with the number of cores, and with the precision where the row has one."""
    name = row.get("gpu") or f"{processor_name(row)}, {row['cores']} cores"
    return f"{name}, {row['precision']}" if "precision" in row else name


def processor_name(row: Row) -> str:
    """Returns a row's processor with its kind, such as `Intel Xeon (AMX)`."""
    cpu, _, emulated = row["cpu"].partition(", as ")
    name = re.sub(r"\((R|TM)\)| Processor| CPU", "", cpu)
    kind = PROCESSOR_NAMES.get(processor(row) or "", "no kernels")
    return f"{name} as {kind} only" if emulated else f"{name} ({kind})"


def measured(row: Row) -> str:
    """Returns the date and the short commit of a row."""
    return f"{row['date']}, {commit(row)}"


def commit(row: Row) -> str:
    """Returns the short commit of a row, with `+` for uncommitted changes."""
    whole = str(row["commit"])
    return whole[:7] + "+" * whole.endswith("+")


def share(values: dict[str, float] | None, n: int) -> str:
    """Returns a mean accuracy of n runs, of three or more with its standard deviation."""
    if not values:
        return "-"
    deviation = f" (sd {100 * values['sd']:.2f})" if values["sd"] is not None and n > 2 else ""
    return f"{values['mean']:.2%}{deviation}"


def command(recipe: str, row: Row) -> str:
    """Returns the command that trains with the row's settings, relative to the recipe of today."""
    now, then = (dotted(tomllib.loads(text)) for text in (load_config(recipe).to_toml(), row["settings"]))
    text = {key: f"{value:g}" if isinstance(value, float) else json.dumps(value) for key, value in then.items()}
    changed = [f"{key}={text[key]}" for key in then if key in now and now[key] != then[key]]
    return " ".join(["train", recipe, *changed])
