"""Small datasets in the official layouts, and sources to fetch them from."""

import hashlib
import http.server
import io
import json
import pickle
import sys
import tarfile
import textwrap
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sprintnet.data.builtin import download
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.preprocessing import Normalisation, Preprocessing

Respond = Callable[[http.server.BaseHTTPRequestHandler], None]
RECORDS = 4
"""Images in each file of the small CIFAR-10."""


def preprocessing(
    classes: tuple[str, ...], shape: tuple[int, int, int] = (32, 32, 3), resize: str = "stretch", task: str = "single-label"
) -> Preprocessing:
    """Returns the preprocessing of a model for images of some shape."""
    return Preprocessing(classes, shape, Normalisation((0.5,) * shape[2], (0.5,) * shape[2]), resize, task, flip_tta=True)


def expect(monkeypatch: pytest.MonkeyPatch, name: str, contents: list[bytes], pickles: Sequence[bytes] = ()) -> None:
    """Makes these contents (for CIFAR: also as pickles) the official ones of a built-in dataset, which then has no source."""
    files = [
        replace(file, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for file, content in zip(BUILTIN_DATASETS[name].files, contents, strict=True)
    ]
    for position, content in enumerate(pickles):
        files[position] = replace(files[position], pickle_md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(BUILTIN_DATASETS, name, replace(BUILTIN_DATASETS[name], files=tuple(files), sources=()))


def write_folder(path: Path, members: dict[str, bytes]) -> str:
    path.mkdir()
    for name, content in members.items():
        (path / name).write_bytes(content)
    return str(path)


def set_sources(monkeypatch: pytest.MonkeyPatch, name: str, *sources: download.Source) -> None:
    """Replaces the sources of a built-in dataset."""
    monkeypatch.setitem(BUILTIN_DATASETS, name, replace(BUILTIN_DATASETS[name], sources=sources))


def python_version(content: bytes) -> bytes:
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, -1)
    return pickle.dumps({b"labels": records[:, 0].tolist(), b"data": records[:, 1:].copy()}, protocol=2)


def sheets(files: dict[str, bytes]) -> dict[str, bytes]:
    """The npm package's layout: one image per row of RGB pixels, labels in two JSON lists."""
    members: dict[str, bytes] = {}
    labels: dict[str, list[int]] = {"train_lables.json": [], "test_lables.json": []}
    for name, content in files.items():
        records = np.frombuffer(content, np.uint8).reshape(RECORDS, -1)
        labels["test_lables.json" if name.startswith("test") else "train_lables.json"] += records[:, 0].tolist()
        pixels = np.ascontiguousarray(records[:, 1:].reshape(RECORDS, 3, -1).transpose(0, 2, 1))
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        members[f"package/{Path(name).stem}.png"] = stream.getvalue()
    return members | {f"package/{name}": json.dumps(values).encode() for name, values in labels.items()}


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


LAYOUTS: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "binary": lambda files: {f"cifar-10-batches-bin/{name}": content for name, content in files.items()},
    "python": lambda files: {f"cifar-10-batches-py/{Path(name).stem}": python_version(c) for name, c in files.items()},
    "sheets": sheets,
}


def to_idx(array: np.ndarray) -> bytes:
    """The format as documented by its author: http://yann.lecun.com/exdb/mnist/."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return header + array.astype(np.uint8).tobytes()


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\n" + textwrap.dedent(body))
    (folder / name).chmod(0o755)


class Server(http.server.ThreadingHTTPServer):
    """Responds with `respond` and counts the requests."""

    requests = 0
    daemon_threads = False  # closing waits for the answers under way

    def __init__(self, respond: Respond):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                respond(self)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/a.tar.gz"


def send(content: bytes) -> Respond:
    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return respond
