"""Sets of classes from a run to an exported file, the command, the server and the page; what they cannot be had from."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from playwright.sync_api import Browser, expect
from pyarrow import parquet

from conftest import SAMPLE, Command
from deploy.client import error, send
from deploy.visit import visit
from sprintnet import load
from sprintnet.data.conformal import HeldOutScores
from sprintnet.data.dataset import ImageDataset
from sprintnet.deploy.export.graph import to_bytes
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.run_predictor import RunPredictor
from sprintnet.errors import ArgumentError
from sprintnet.evaluation.calibration import fit_temperature
from sprintnet.evaluation.held_out import reserved
from sprintnet.evaluation.trained_model import load_run
from sprintnet.runs.folder import RunFolder, read_arrays, read_json

FILES = sorted((SAMPLE / "test").glob("*/*.png"))[::7]


@pytest.fixture(scope="module")
def without_scores(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file as exported from a run that held no images out."""
    proto = onnx.load(model)
    for entry in proto.metadata_props:
        if entry.key == "preprocessing":
            entry.value = json.dumps({**json.loads(entry.value), "held_out": {}, "temperature": None, "tta_temperatures": {}})
    path = tmp_path_factory.mktemp("none") / "model.onnx"
    path.write_bytes(to_bytes(proto))
    return path


def names(sets: list[list[tuple[str, float]]]) -> list[list[str]]:
    return [[label for label, _ in found] for found in sets]


def test_a_file_gives_the_sets_of_its_run(exported: dict[str, RunFolder], test_set: ImageDataset) -> None:
    for run in exported.values():
        images = test_set.images
        of_file, of_run = Predictor(run.export / "model.onnx")(images), RunPredictor(run.path)(images)
        for options in ((0.8, "threshold", False), (0.9, "adaptive", False), (0.9, "threshold", True)):
            assert names(of_file.sets(*options)) == names(of_run.sets(*options))
        assert names(of_file.sets(0.9)) == load(run.path).predict_sets(images)
        sizes = [len(found) for found in of_file.sets(0.9)]
        assert 1 <= min(sizes) < max(sizes)


def test_scores_are_of_images_on_which_their_temperature_was_not_fitted(exported: dict[str, RunFolder]) -> None:
    run = exported["davidnet"]
    metrics, arrays = read_json(run.metrics), read_arrays(run.predictions)
    sets = metrics["val"]["sets"]
    assert sets["images"] + sets["held_out"] == metrics["val"]["images"] == len(arrays["val_labels"])
    preprocessing, kept = load_run(run.path)[0].preprocessing, reserved(arrays["val_labels"])
    logits, labels = arrays["val_logits"], arrays["val_labels"]
    assert preprocessing.temperature == fit_temperature(preprocessing.unsmoothed(logits), labels)
    of_others = replace(preprocessing, temperature=fit_temperature(preprocessing.unsmoothed(logits[~kept]), labels[~kept]))
    assert of_others.temperature != preprocessing.temperature
    expected = HeldOutScores.of(of_others.probabilities(logits[kept]), labels[kept])
    assert preprocessing.held_out_scores is not None
    for method, pools in preprocessing.held_out_scores.scores.items():
        np.testing.assert_allclose(np.concatenate(pools), np.concatenate(expected.scores[method]), rtol=1e-5, atol=1e-9)
    for coverage in (0.8, 0.9):
        same = expected.sets(of_others.probabilities(logits), coverage)
        np.testing.assert_array_equal(preprocessing.held_out_scores.sets(preprocessing.probabilities(logits), coverage), same)
    np.testing.assert_array_equal(np.bincount(labels[kept]), np.round(np.bincount(labels) / 2))


def test_the_model_card_has_the_files_own_figures(exported: dict[str, RunFolder]) -> None:
    run = exported["davidnet"]
    metrics = read_json(run.export / "parity.json")["files"]["model.onnx"]["metrics"]
    card = (run.export / "README.md").read_text("utf-8")
    row = next(row for row in metrics["sets"]["rows"] if row["coverage"] == 0.9 and row["method"] == "threshold")
    assert f"of 90% asked, {row['covered']:.1%} with {row['mean_size']:.2f} classes on average" in card
    assert f"of 5% false alarms asked, {metrics['unknown']['rows'][0]['found']:.1%} (" in card


def test_metrics_count_the_sets_of_the_logits(exported: dict[str, RunFolder], test_set: ImageDataset) -> None:
    run = exported["sprintnet"]
    predictions = Predictor(run.export / "model.onnx")(test_set.images)
    row = load(run.path).evaluate(test_set)["sets"]["rows"][0]
    sets = names(predictions.sets(row["coverage"], row["method"], row["by_class"]))
    covered = [test_set.classes[label] in found for label, found in zip(test_set.labels, sets, strict=True)]
    assert row["covered"] == np.mean(covered)
    assert row["mean_size"] == np.mean([len(found) for found in sets])
    assert row["single"] == np.mean([len(found) == 1 for found in sets])


def test_the_command_lists_sets_in_every_format(sprintnet: Command, model: Path) -> None:
    expected = names(Predictor(model)(FILES).sets(0.9, "adaptive"))
    words = ["predict", str(model), *map(str, FILES), "--coverage", "0.9", "--sets", "adaptive"]
    rows = list(csv.DictReader(io.StringIO(sprintnet(*words, "--format", "csv").stdout)))
    assert [row["set"].split("|") for row in rows] == expected
    found = json.loads(sprintnet(*words, "--format", "json").stdout)
    assert [[entry["class"] for entry in row["set"]] for row in found] == expected
    head, *lines = sprintnet(*words).stdout.splitlines()
    assert re.split(r"  +", head)[-2:] == ["set", "file"]
    assert [re.split(r"  +", line)[-2].split(" | ") for line in lines] == expected


def test_a_table_has_sets_too(sprintnet: Command, model: Path, tmp_path: Path) -> None:
    words = ["predict", str(model), *map(str, FILES), "--coverage", "0.8"]
    for name in ("sets.parquet", "sets.csv"):
        assert sprintnet(*words, "--output", name).returncode == 0
    expected = ["|".join(found) for found in names(Predictor(model)(FILES).sets(0.8))]
    assert parquet.read_table(tmp_path / "sets.parquet")["set"].to_pylist() == expected
    with (tmp_path / "sets.csv").open() as stream:
        assert [row["set"] for row in csv.DictReader(stream)] == expected


@pytest.mark.parametrize("backend", ["server", "static"])
def test_the_page_shows_them(request: pytest.FixtureRequest, browser: Browser, backend: str, model: Path) -> None:
    page = visit(browser, request.getfixturevalue(backend)).page
    page.locator("#files").set_input_files(FILES)
    for coverage in ("0.9", "0.8"):
        page.locator("#coverage").select_option(coverage)
        expected = names(Predictor(model)(FILES).sets(float(coverage)))
        others = [f"one of {len(found)}: {', '.join(found)}" if len(found) > 1 else "no other class" for found in expected]
        texts = [f"At {100 * float(coverage):.0f} %, {each}" for each in others]
        expect(page.locator("article .set")).to_have_text(texts)
        assert len(set(texts)) > 1
    page.close()


def test_the_server_answers_sets_where_they_are_asked_for(server: str, model: Path) -> None:
    file = FILES[0]
    expected = [{"class": label, "probability": probability} for label, probability in Predictor(model)([file]).sets(0.95)[0]]
    assert send(server, file.read_bytes(), "?coverage=0.95").json()["images"][0]["set"] == expected
    assert "set" not in send(server, file.read_bytes()).json()["images"][0]
    for wrong in ("0", "1", "-0.5", "nan", "much"):
        status, code, message = error(send(server, file.read_bytes(), f"?coverage={wrong}"))
        assert (status, code) == (400, "bad_query")
        assert re.search(r"coverage.* such as 0\.9", message)


def test_no_sets_without_held_out_images(sprintnet: Command, without_scores: Path) -> None:
    done = sprintnet("predict", str(without_scores), str(FILES[0]), "--coverage", "0.9")
    assert done.returncode == 2
    assert done.stderr == (
        "sprintnet: --coverage 0.9: the model has no scores of held-out images; half of the held-out images of "
        "each class give them: train again and hold out more, such as data.val=0.3\n"
    )
    with pytest.raises(ArgumentError, match=r"coverage=0\.9: the model has no scores"):
        Predictor(without_scores)(FILES[:1]).sets(0.9)


def test_no_sets_for_several_labels(labelled: RunFolder) -> None:
    with pytest.raises(ArgumentError, match="sets are for models of one label an image"):
        Predictor(labelled.export / "model.onnx")(FILES[:1]).sets(0.9)
    assert "sets" not in read_json(labelled.metrics)["val"]


def test_classes_with_few_held_out_images_are_named(sprintnet: Command, model: Path) -> None:
    done = sprintnet("predict", str(model), str(FILES[0]), "--coverage", "0.95", "--by-class", "--format", "json")
    assert done.returncode == 0
    classes = Predictor(model).classes  # all have few
    needed = "fewer than the 19 held-out images that a coverage of 0.95 needs"
    assert done.stderr == f"--by-class: in every set, with {needed}: {', '.join(classes)}\n"
    assert len(json.loads(done.stdout)[0]["set"]) == len(classes)


@pytest.mark.parametrize("options", [("--by-class",), ("--sets", "adaptive")])
def test_how_without_coverage_is_refused(sprintnet: Command, model: Path, options: tuple[str, ...]) -> None:
    done = sprintnet("predict", str(model), str(FILES[0]), *options)
    assert done.returncode == 2
    assert "add --coverage, such as --coverage 0.9" in done.stderr
