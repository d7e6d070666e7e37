"""Unknown images and embeddings from a run to an exported file, the command, the server and the page."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from playwright.sync_api import Browser, expect
from scipy.stats import binom

from conftest import SAMPLE, Command
from deploy.client import send
from deploy.visit import visit
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.preprocessing import Normalisation, Preprocessing
from sprintnet.deploy.export.graph import to_bytes
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.run_predictor import RunPredictor
from sprintnet.errors import ArgumentError
from sprintnet.evaluation.held_out import reserved
from sprintnet.evaluation.trained_model import load_run
from sprintnet.runs.folder import RunFolder, read_arrays, read_json

FILES = sorted((SAMPLE / "test").glob("*/*.png"))[::7]
RATE = 0.05  # of false alarms


@pytest.fixture(scope="module")
def files(model: Path) -> list[Path]:
    """Test images, of which the model takes some for unknown."""
    everything = sorted((SAMPLE / "test").glob("*/*.png"))
    flags = Predictor(model)(everything).unknown(RATE)
    assert flags.any()
    order = np.argsort(~flags, kind="stable")  # unknown ones first
    return [everything[index] for index in [*order[:2], *order[-4:]]]


def probabilities_only(model: Path, path: Path) -> Path:
    """Writes the file without its other outputs."""
    proto = onnx.load(model)
    for output in [output for output in proto.graph.output if output.name != "probabilities"]:
        proto.graph.output.remove(output)
    path.write_bytes(to_bytes(proto))
    return path


def test_a_file_and_its_run_say_the_same(exported: dict[str, RunFolder], test_set: ImageDataset) -> None:
    for run in exported.values():
        of_file, of_run = Predictor(run.export / "model.onnx")(test_set.images), RunPredictor(run.path)(test_set.images)
        np.testing.assert_allclose(of_file.novelty, of_run.novelty, rtol=1e-3)
        np.testing.assert_allclose(of_file.embeddings, of_run.embeddings, rtol=1e-3, atol=1e-4)
        network = load_run(run.path)[0].model
        logits = of_run.embeddings @ network.linear.weight.detach().numpy().T * network.logit_scale
        if network.linear.bias is not None:
            logits += network.linear.bias.detach().numpy() * network.logit_scale
        np.testing.assert_allclose(logits, of_run.logits, rtol=1e-4, atol=1e-4)


def test_scores_are_of_the_held_out_images_that_fit_nothing(exported: dict[str, RunFolder]) -> None:
    run = exported["davidnet"]
    arrays, unknown = read_arrays(run.predictions), read_json(run.metrics)["val"]["unknown"]
    kept = reserved(arrays["val_labels"])
    scores = load_run(run.path)[0].preprocessing.novelty_scores
    np.testing.assert_allclose(scores, np.sort(arrays["val_novelty"][kept]), rtol=1e-5)
    assert (unknown["held_out"], unknown["images"]) == (kept.sum(), (~kept).sum())
    fresh = arrays["val_novelty"][~kept]
    expected = [
        np.mean([(np.sum(scores >= value) + 1) / (len(scores) + 1) <= row["asked"] for value in fresh])
        for row in unknown["rows"]
    ]
    assert [row["found"] for row in unknown["rows"]] == expected
    assert expected


def test_false_alarms_are_as_many_as_asked_for() -> None:
    generator, rate, splits, images = np.random.default_rng(0), 0.05, 400, 99
    plain = Preprocessing(("a", "b"), (8, 8, 3), Normalisation((0.5,) * 3, (0.2,) * 3), "stretch", "single-label", True)
    alarms = 0
    for _ in range(splits):
        novelty = generator.gamma(3, size=images + 1)
        model = Preprocessing(**{**vars(plain), "novelty_scores": tuple(sorted(novelty[:-1].tolist()))})
        alarms += int(model.unknown(novelty[-1:], rate)[0])
    assert binom.ppf(0.001, splits, rate) <= alarms <= binom.ppf(0.999, splits, rate)


def test_the_command_marks_them_in_every_format(sprintnet: Command, model: Path, files: list[Path]) -> None:
    flags = Predictor(model)(files).unknown(RATE).tolist()
    words = ["predict", str(model), *map(str, files), "--unknown", str(RATE)]
    rows = list(csv.DictReader(io.StringIO(sprintnet(*words, "--format", "csv").stdout)))
    assert [row["unknown"] for row in rows] == [str(flag).lower() for flag in flags]
    assert [row["predicted"] == "" for row in rows] == flags
    found = json.loads(sprintnet(*words, "--format", "json").stdout)
    assert [row["unknown"] for row in found] == flags
    lines = sprintnet(*words).stdout.splitlines()[1:]
    assert [line.startswith("unknown ") for line in lines] == flags


def test_the_server_says_how_typical_each_is(server: str, model: Path, files: list[Path]) -> None:
    expected = Predictor(model)(files)
    assert expected.typicality is not None
    for file, typicality in zip(files, expected.typicality.tolist(), strict=True):
        assert send(server, file.read_bytes()).json()["images"][0]["typicality"] == pytest.approx(typicality)


@pytest.mark.parametrize("backend", ["server", "static"])
def test_the_page_shows_them(
    request: pytest.FixtureRequest, browser: Browser, backend: str, model: Path, files: list[Path]
) -> None:
    page = visit(browser, request.getfixturevalue(backend)).page
    page.locator("#files").set_input_files(files)
    expect(page.locator("article.waiting")).to_have_count(0)
    for card, is_unknown in zip(page.locator("article").all(), Predictor(model)(files).unknown(RATE), strict=True):
        assert (card.locator("h2").inner_text() == "Probably none of these classes") == is_unknown
        assert card.locator(".unusual").is_visible() == is_unknown
    page.close()


def test_embeddings_go_into_a_file(sprintnet: Command, model: Path, tmp_path: Path) -> None:
    files = [*FILES, FILES[0]]
    done = sprintnet("predict", str(model), *map(str, files), "--embeddings", "found.npz")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    assert found["files"].tolist() == list(map(str, files))
    np.testing.assert_allclose(found["embeddings"], Predictor(model)(files).embeddings, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--unknown", "0.05"), "--unknown 0.05: the model has no output novelty; export it again, with that output"),
        (
            ("--embeddings", "a.npz"),
            "--embeddings a.npz: the model has no output embeddings; export it again, with that output",
        ),
        (("--embeddings", "a.txt"), "--embeddings a.txt: must be a .npz file in a folder that exists"),
        (("--embeddings", "a.npz", "--output", "b.csv", "--on", "ray", "--shards", "2"), "cannot be combined with --output"),
        (("--embeddings", "a.npz", "--output", "b.csv"), "--embeddings a.npz: cannot be combined with --output"),
    ],
)
def test_what_a_file_lacks_is_said(
    sprintnet: Command, model: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    file = probabilities_only(model, tmp_path / "model.onnx")
    done = sprintnet("predict", str(file), str(FILES[0]), *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_model_without_held_out_images_is_told_how_few_photos_can_have_some() -> None:
    plain = Preprocessing(("a", "b"), (8, 8, 3), Normalisation((0.5,) * 3, (0.2,) * 3), "stretch", "single-label", True)
    told = r"needs 99 held-out images, and the model has scores of 0; .*data.val=0.3; with .*, such as 0.1 \(needs 9\)"
    with pytest.raises(ArgumentError, match=told):
        plain.unknown(np.zeros(1), 0.01)


def test_too_few_held_out_images_for_so_few_false_alarms(sprintnet: Command, model: Path) -> None:
    done = sprintnet("predict", str(model), str(FILES[0]), "--unknown", "0.001")
    assert done.returncode == 2
    assert re.search(
        r"--unknown 0\.001: needs 999 held-out images, and the model has scores of \d+; ask for 0\.\d+ or", done.stderr
    )
    with pytest.raises(ArgumentError, match=r"unknown=1: must be more than 0 and less than 1"):
        Predictor(model)(FILES[:1]).unknown(1)
