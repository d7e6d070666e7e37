"""A folder for any static web server: the page, the model and ONNX Runtime for browsers."""

import json
import shutil
from pathlib import Path
from typing import Any

from sprintnet.data.builtin.cache import fetch_files
from sprintnet.data.builtin.download import Download, OfficialFile, npm
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.serve.site import BACKEND, PAGE, SHARED, describe, find_samples
from sprintnet.errors import SettingsError
from sprintnet.runs.io import cache_folder

RUNTIME_VERSION = "1.30.0"
RUNTIME = Download(
    title="ONNX Runtime Web",
    files=(
        OfficialFile("ort.wasm.bundle.min.mjs", 73_054, "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
        OfficialFile(
            "ort-wasm-simd-threaded.wasm", 14_239_897, "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
        ),
    ),
    sources=(npm(f"onnxruntime-web@{RUNTIME_VERSION}"),),
)
"""The files that the page loads."""
NOTICE = "NOTICE.txt"  # the runtime's licence, which goes along with its copies
METADATA = "metadata.json"


def check_destination(folder: Path) -> None:
    """Raises SettingsError for a folder that contains anything but an earlier page."""
    if folder.exists() and not (folder.is_dir() and (_earlier_page(folder) or not any(folder.iterdir()))):
        raise SettingsError(f"--web {folder}: exists and is no page of an earlier export; choose a new or an empty folder")


def _earlier_page(folder: Path) -> dict[str, Any]:
    """Returns the metadata of the page in a folder; {} if there is no page of ours."""
    try:
        description = json.loads((folder / METADATA).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(description, dict) and description.keys() >= {"model", "outputs", "samples"}
    return description if is_ours and (folder / BACKEND).is_file() else {}


def fetch_runtime() -> dict[str, bytes]:
    """Returns the verified files of ONNX Runtime Web, from the cache or the npm registry; raises DataError."""
    folder = cache_folder() / f"onnxruntime-web-{RUNTIME_VERSION}"
    names = " and ".join(file.name for file in RUNTIME.files)
    remedy = f"install npm (Node.js) and repeat the command with a network, or put {names} into {folder}"
    return fetch_files(RUNTIME, folder, remedy)


def write_web(model: Path, destination: Path, runtime: dict[str, bytes]) -> None:
    """Writes the page, the model and all they need into a folder; not the report, which names local paths."""
    check_destination(destination)
    (destination / "samples").mkdir(parents=True, exist_ok=True)
    for sample in _earlier_page(destination).get("samples", []):
        (destination / "samples" / Path(sample).name).unlink(missing_ok=True)
    description = {**describe(Predictor(model)), "report": None}
    copies = {name: PAGE / name for name in (*SHARED, NOTICE)} | {BACKEND: PAGE / "browser.js", model.name: model}
    copies |= {f"samples/{file.name}": file for file in find_samples(model)}
    for name, file in copies.items():
        shutil.copyfile(file, destination / name)
    for name, content in runtime.items():
        (destination / name).write_bytes(content)
    (destination / METADATA).write_text(json.dumps(description, indent=2) + "\n", "utf-8")
