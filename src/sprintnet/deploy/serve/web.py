"""A folder that any web server can offer: the page, the model and ONNX Runtime for browsers."""

import hashlib
import json
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

from sprintnet.data.builtin.download import npm_pack
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.serve.site import BACKEND, PAGE, SHARED, describe, find_samples
from sprintnet.errors import DataError, SettingsError
from sprintnet.runs.io import cache_folder, write_atomic

VERSION = "1.30.0"
NPM_PACKAGE = f"onnxruntime-web@{VERSION}"
RUNTIME = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""The files of the package that the page loads, with their SHA-256."""
NOTICE = "NOTICE.txt"
"""The runtime's licence, which goes along with its copies."""
METADATA = "metadata.json"


def check_destination(folder: Path) -> None:
    """Raises SettingsError where a folder holds anything but an earlier page."""
    if folder.exists() and not (folder.is_dir() and (_earlier_page(folder) or not any(folder.iterdir()))):
        raise SettingsError(f"--web {folder}: exists and is no page of an earlier export; choose a new folder, or an empty one")


def _earlier_page(folder: Path) -> dict[str, Any]:
    """Returns what a folder's page says about its model; nothing where it is no page of ours."""
    try:
        description = json.loads((folder / METADATA).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(description, dict) and description.keys() >= {"model", "outputs", "samples"}
    return description if is_ours and (folder / BACKEND).is_file() else {}


def fetch_runtime() -> dict[str, bytes]:
    """Returns the verified files of ONNX Runtime for browsers, from the cache or, once, from the npm registry.

    Raises DataError where they cannot be obtained or are not the expected ones.
    """
    folder = cache_folder() / NPM_PACKAGE.replace("@", "-")
    try:
        files = {name: (folder / name).read_bytes() for name in RUNTIME if (folder / name).is_file()}
        if {name: _digest(content) for name, content in files.items()} != RUNTIME:
            with tempfile.TemporaryDirectory() as work:
                files = _unpack(npm_pack(NPM_PACKAGE, Path(work)))
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_atomic(folder / name, content)
    except DataError as error:
        raise DataError(
            f"{NPM_PACKAGE}, which the page runs on, could not be obtained: {error}\n"
            f"install npm (Node.js) and repeat the command with a network, or put {' and '.join(RUNTIME)} into {folder}"
        ) from None
    return files


def write_web(model: Path, destination: Path, runtime: dict[str, bytes]) -> None:
    """Fills a folder with the page, the model and all that they need, but no report: it names local paths."""
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


def _unpack(archive: Path) -> dict[str, bytes]:
    """Returns the files that the page loads from the package; raises DataError where they are not the expected ones."""
    files = {}
    try:
        with tarfile.open(archive) as package:
            for name in RUNTIME:
                stream = package.extractfile(f"package/dist/{name}")
                if stream is None:
                    raise KeyError(name)
                files[name] = stream.read()
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{archive.name} is not the package that it should be ({error})") from None
    for name, content in files.items():
        if _digest(content) != RUNTIME[name]:
            raise DataError(f"{name}: SHA-256 {_digest(content)} instead of {RUNTIME[name]}")
    return files


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
