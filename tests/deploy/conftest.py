"""Fixtures: two small exported runs, servers on real sockets."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import TINY
from deploy.visit import plain_server
from sprintnet.cli.main import main
from sprintnet.config import load_config
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits
from sprintnet.data.splits import Splits
from sprintnet.deploy.export.export import export
from sprintnet.deploy.serve import web
from sprintnet.errors import DataError
from sprintnet.runs.folder import RunFolder
from sprintnet.training import train as pipeline

Start = Callable[..., "Server"]


class Server:
    """A process that serves a model, and its address."""

    def __init__(self, command: list[str], **settings: object):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **settings)  # type: ignore[call-overload]
        assert self.process.stdout
        said = self.process.stdout.readline()
        found = re.search(r"http://\S+:(\d+)", said)
        if not found:
            self.process.kill()
            self.process.communicate()
            pytest.fail(f"the server did not start: {said}")
        self.url, self.port = found[0], int(found[1])


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """Runs on the sample by network, exported in fp32."""
    runs = {}
    for name, more in {"davidnet": [], "sprintnet": ["model.width=8"]}.items():
        run = RunFolder(tmp_path_factory.mktemp(name) / "run")
        # long enough that predictions do not depend on rounding; in fp32, as the file computes
        pipeline.train(load_config("davidnet", [*TINY, "precision=fp32", "epochs=10", f"model.name={name}", *more]), run)
        run.report.write_text("SprintNet report")
        export(run.path)
        runs[name] = run
    return runs


@pytest.fixture(scope="session")
def splits() -> Splits:
    """The splits of the exported runs, with the test set."""
    return load_splits(load_config("davidnet", TINY).data, test=True)


@pytest.fixture(scope="session")
def train(splits: Splits) -> ImageDataset:
    return splits["train"]


@pytest.fixture(scope="session")
def val(splits: Splits) -> ImageDataset:
    return splits["val"]


@pytest.fixture(scope="session")
def test_set(splits: Splits) -> ImageDataset:
    return splits["test"]


@pytest.fixture(scope="session")
def model(exported: dict[str, RunFolder]) -> Path:
    """davidnet's model.onnx, with its samples and report."""
    return exported["davidnet"].export / "model.onnx"


@pytest.fixture
def start(model: Path) -> Iterator[Start]:
    """Starts a server of the model with limits; it ends with the test."""
    servers = []

    def begin(limits: str = "", hosts: str = "()", origins: str = "()", model: Path = model, **settings: object) -> Server:
        script = (
            "from pathlib import Path; from sprintnet.deploy.serve.server import serve; "
            "from sprintnet.deploy.serve.limits import Limits; "
            f"serve(Path({str(model)!r}), '127.0.0.1', 0, {hosts}, {origins}, Limits({limits}))"
        )
        servers.append(Server([sys.executable, "-W", "error", "-c", script], **settings))
        return servers[-1]

    yield begin
    for server in servers:
        server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="session")
def server(model: Path) -> Iterator[str]:
    """The address of a server started by the command."""
    command = [sys.executable, "-W", "error", "-m", "sprintnet", "serve", str(model), "--port", "0"]
    server = Server(command)
    yield server.url
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert server.process.stdout
    server.process.stdout.close()


@pytest.fixture(scope="session")
def runtime() -> dict[str, bytes]:
    """ONNX Runtime for browsers."""
    try:
        return web.fetch_runtime()
    except DataError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def static(model: Path, runtime: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a static web server of the exported page."""
    folder = tmp_path_factory.mktemp("web")
    shutil.copytree(model.parents[1], folder / "run")
    assert main(["export", str(folder / "run"), "--web", str(folder / "page")]) == 0
    with plain_server(folder / "page") as address:
        yield address
