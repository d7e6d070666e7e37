"""Thresholds of each class in an exported file: the files, the command, the server, the page, the card; what they need."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from conftest import SAMPLE, TINY, Command
from deploy.client import send
from deploy.conftest import Start
from deploy.visit import plain_server, visit
from sprintnet import load
from sprintnet.config import load_config
from sprintnet.data.load import load_splits
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.serve.web import write_web
from sprintnet.errors import ArgumentError
from sprintnet.runs.folder import RunFolder, read_arrays, read_json

FILES = sorted((SAMPLE / "test").glob("*/*.png"))[::7]
PRECISION = 0.75


@pytest.fixture(scope="module")
def run(exported: dict[str, RunFolder], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run exported with thresholds."""
    copy = RunFolder(tmp_path_factory.mktemp("thresholds") / "run")
    shutil.copytree(exported["davidnet"].path, copy.path)
    load(copy.path).export(min_precision=PRECISION, quantize="int8")  # type: ignore[union-attr]
    return copy


@pytest.fixture(scope="module")
def file(run: RunFolder) -> Path:
    return run.export / "model.onnx"


def test_thresholds_are_those_of_held_out_images(run: RunFolder, file: Path) -> None:
    predictor, arrays = Predictor(file), read_arrays(run.predictions)
    probabilities, labels = predictor.preprocessing.probabilities(arrays["val_logits"]), arrays["val_labels"]
    best, confidence = probabilities.argmax(1), probabilities.max(1)
    thresholds = np.array(predictor.preprocessing.thresholds)
    assert thresholds.shape == (10,) and 0 < thresholds.min() < 1
    for label in range(10):
        chosen = (best == label) & (confidence > thresholds[label])
        assert not chosen.any() or (labels[chosen] == label).mean() >= PRECISION
    assert predictor.preprocessing.thresholds == Predictor(run.export / "model-int8.onnx").preprocessing.thresholds


def test_the_command_predicts_above_them_alone(sprintnet: Command, file: Path) -> None:
    expected = Predictor(file)(FILES)
    assert 0 < expected.unsure.sum() < len(FILES)
    words = ["predict", str(file), *map(str, FILES)]
    rows = list(csv.DictReader(io.StringIO(sprintnet(*words, "--format", "csv").stdout)))
    assert [row["predicted"] == "" for row in rows] == expected.unsure.tolist()
    found = json.loads(sprintnet(*words, "--format", "json").stdout)
    assert [row["predicted"] for row in found] == [
        None if unsure else label for unsure, label in zip(expected.unsure, expected.labels, strict=True)
    ]
    lines = sprintnet(*words).stdout.splitlines()[1:]
    assert [" ? " in line for line in lines] == expected.unsure.tolist()


@pytest.mark.parametrize("backend", ["server", "static"])
def test_the_page_says_so(
    browser: Browser, backend: str, file: Path, start: Start, runtime: dict[str, bytes], tmp_path: Path
) -> None:
    expected = Predictor(file)(FILES).unsure.tolist()
    if backend == "static":
        write_web(file, tmp_path / "page", runtime)
        with plain_server(tmp_path / "page") as address:
            assert unsure_cards(browser, address) == expected
        return
    server = start(model=file)
    images = [send(server.url, path.read_bytes()).json()["images"][0] for path in FILES]
    assert [image["predicted"] is None for image in images] == expected
    assert unsure_cards(browser, server.url) == expected


def unsure_cards(browser: Browser, address: str) -> list[bool]:
    page = visit(browser, address).page
    page.locator("#files").set_input_files(FILES)
    expect(page.locator("article.waiting")).to_have_count(0)
    found = [card.locator("h2").inner_text().startswith("Not sure enough: perhaps ") for card in page.locator("article").all()]
    page.close()
    return found


def test_the_card_and_the_table_have_the_files_own_figures(run: RunFolder) -> None:
    found = read_json(run.export / "parity.json")["files"]["model.onnx"]["metrics"]["thresholds"]
    card = (run.export / "README.md").read_text("utf-8")
    for row in found["rows"]:
        precision = "-" if row["precision"] is None else f"{row['precision']:.1%}"
        assert f"| `{row['class']}` | {row['threshold']:.3f} | {row['predictions']} | {precision} |" in card
    assert "which also chose the thresholds" in card  # the run's test set is untouched


def test_verification_works_with_them(sprintnet: Command, run: RunFolder) -> None:
    done = sprintnet("verify", str(run.path), "--no-replay")
    assert done.returncode == 0, done.stderr
    assert "model.onnx      same" in done.stdout


def test_by_cost_a_class_has_its_own(sprintnet: Command, exported: dict[str, RunFolder], tmp_path: Path) -> None:
    shutil.copytree(exported["sprintnet"].path, tmp_path / "run")
    done = sprintnet("export", "run", "--cost", "4", "--cost", "cat=10")
    assert done.returncode == 0, done.stderr
    thresholds = dict(zip(Predictor(tmp_path / "run" / "export" / "model.onnx").classes, (0.75,) * 10, strict=True)) | {
        "cat": 0.9
    }
    found = Predictor(tmp_path / "run" / "export" / "model.onnx").preprocessing.thresholds
    assert found == pytest.approx(tuple(thresholds.values()))
    assert re.search(r"cat +0\.900", done.stdout)
    assert "(they also chose the thresholds: an optimistic estimate)" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--min-precision", "0.9", "--cost", "3"),
            "--min-precision 0.9: cannot be combined with costs; leave one of them out",
        ),
        (("--min-precision", "2"), "--min-precision 2: must be a number from 0.01 to 1"),
        (("--cost", "much"), "--cost much: must be a number, such as 5, or CLASS=NUMBER, such as cat=5"),
        (("--cost", "cow=3"), "--cost cow: is no class of the model"),
        (("--cost", "0.5"), "--cost 0.5: must be 1, the cost of no prediction, or more, such as 5"),
    ],
)
def test_what_cannot_be_asked(sprintnet: Command, run: RunFolder, words: tuple[str, ...], message: str) -> None:
    done = sprintnet("export", str(run.path), *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_they_need_held_out_images(sprintnet: Command, exported: dict[str, RunFolder], tmp_path: Path) -> None:
    trained = load(exported["davidnet"].path)
    with pytest.raises(ArgumentError, match="cost"):
        trained.export(cost={"cow": 2.0})  # type: ignore[union-attr]
    digits = [word for word in TINY if not word.startswith(("data.", "epochs"))]
    done = sprintnet(
        "train", "davidnet", "--data", "digits", "data.val=0", "epochs=1", *digits, "--no-report", "--name", "none"
    )
    assert done.returncode == 0, done.stderr
    done = sprintnet("export", "none", "--min-precision", "0.9")
    assert done.returncode == 2
    assert (
        "--min-precision 0.9: needs held-out images, on which probabilities are calibrated; train with data.val" in done.stderr
    )


def test_several_labels_are_predicted_above_theirs(labelled: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(labelled.path, tmp_path / "run")
    file = load(tmp_path / "run").export(cost=4.0)  # type: ignore[union-attr]
    predictor, row = Predictor(file), read_json(file.parent / "parity.json")["files"]["model.onnx"]
    images = load_splits(load_config(labelled.config).data, run=labelled)["val"]
    found = predictor(images.images)
    assert predictor.preprocessing.thresholds == pytest.approx([0.8] * 4)
    np.testing.assert_array_equal(found.predicted_mask, found.probabilities > 0.8)
    assert not found.unsure.any()
    right = float((found.predicted_mask == images.labels).all(axis=1).mean())
    assert row["accuracy"] == row["metrics"]["accuracy"] == right
    assert right != read_json(labelled.metrics)["val"]["accuracy"]


def test_views_are_averaged_only_where_the_thresholds_were_chosen_so(file: Path) -> None:
    with pytest.raises(ArgumentError, match="has thresholds of predictions without it; export it again with tta"):
        Predictor(file, tta=True)
