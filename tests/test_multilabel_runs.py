"""Images with any number of labels from training to answers: what a run holds, its report, what is shipped."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser
from sklearn.metrics import accuracy_score, average_precision_score

from conftest import TINY, Command
from shapes import CLASSES, splits
from sprintnet.cli.main import main
from sprintnet.config import load_config
from sprintnet.data.dataset import label_text
from sprintnet.deploy.export.export import export
from sprintnet.deploy.export.graph import build_graph
from sprintnet.deploy.predictor import Predictor
from sprintnet.errors import ParityError, SettingsError
from sprintnet.evaluation.calibration import fit_label_temperature
from sprintnet.evaluation.multilabel import label_confidence, label_probabilities
from sprintnet.evaluation.trained_model import load, load_run
from sprintnet.runs.folder import RunFolder, read_arrays, read_json, read_rows
from sprintnet.training.lr_search import lr_find


@pytest.fixture
def run(labelled: RunFolder) -> RunFolder:
    """A finished run, explained, reported and exported in three precisions."""
    return labelled


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Test images as files, the first of them of no shape at all."""
    folder = tmp_path_factory.mktemp("images")
    images = [np.full((32, 32, 3), 90, np.uint8), *splits()["val"].images[:20]]
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return [str(file) for file in sorted(folder.iterdir())]


def test_accuracy_is_exact_match_in_the_table_and_in_the_metrics(run: RunFolder) -> None:
    arrays, metrics = read_arrays(run.predictions), read_json(run.metrics)
    logits, labels = arrays["val_logits"], arrays["val_labels"]
    np.testing.assert_array_equal(labels, splits()["val"].labels)
    assert metrics["val"]["accuracy"] == accuracy_score(labels, logits > 0)
    assert metrics["val"]["mean_average_precision"] == pytest.approx(average_precision_score(labels, logits))
    rows = read_rows(run.results)
    assert float(rows[-1]["val_accuracy"]) == metrics["val"]["accuracy"]
    assert float(rows[0]["train_loss"]) > float(rows[-1]["train_loss"])
    assert metrics["val"]["mean_average_precision"] > 0.7  # 0.45 by chance
    assert "exact match: share of images with every label right" in run.log_text.read_text()


def test_the_temperature_is_fitted_on_held_out_images_by_their_cross_entropy(run: RunFolder) -> None:
    arrays, metrics = read_arrays(run.predictions), read_json(run.metrics)
    assert metrics["temperature"] == fit_label_temperature(arrays["val_logits"], arrays["val_labels"])
    before, after = (metrics["val"][key]["nll"] for key in ("calibration", "calibrated"))
    assert after < before
    assert sum(row["images"] for row in metrics["val"]["calibration"]["reliability"]) == 400


def test_tta_is_for_images_with_an_unsure_label_set(run: RunFolder) -> None:
    arrays, tta = read_arrays(run.predictions), read_json(run.metrics)["val"]["tta"]
    unsure = label_confidence(arrays["val_logits"]) <= 0.3
    assert 0 < unsure.mean() < 1
    assert tta["fraction"] == unsure.mean()
    assert tta["accuracy"] == accuracy_score(splits()["val"].labels, arrays["val_tta_logits"] > 0)


def test_rows_of_predictions_join_labels(run: RunFolder) -> None:
    logits = load_run(run.path)[0].preprocessing.calibrated(read_arrays(run.predictions)["val_logits"])
    rows = [row for row in read_rows(run.predictions_csv) if row["split"] == "val"]
    for row, labels, answer, probabilities in zip(
        rows, splits()["val"].labels, logits > 0, label_probabilities(logits), strict=True
    ):
        assert row["true"] == "|".join(np.array(CLASSES)[labels == 1])
        assert row["predicted"] == "|".join(np.array(CLASSES)[answer])
        assert [float(text) for text in row["probabilities"].split("|")] == pytest.approx(probabilities, abs=1e-6)


def test_artifacts_have_each_label_and_the_most_confident_errors(run: RunFolder) -> None:
    kept = read_arrays(run.artifacts)
    for name, part in (("train", splits()["train"]), ("val", splits()["val"])):
        np.testing.assert_array_equal(kept[f"counts_{name}"], part.labels.sum(axis=0))
    for image, label in zip(kept["originals"], kept["original_labels"], strict=True):
        same = (splits()["train"].images == image).all(axis=(1, 2, 3))
        assert splits()["train"].labels[same][0, label] == 1
    logits = load_run(run.path)[0].preprocessing.calibrated(read_arrays(run.predictions)["val_logits"])
    wrong = kept["error_index"]
    assert set(wrong) == set(np.flatnonzero(((logits > 0) != splits()["val"].labels).any(axis=1)))
    assert (np.diff(label_confidence(logits)[wrong]) <= 0).all()


def test_maps_are_of_the_false_label_where_there_is_one(run: RunFolder) -> None:
    answers = json.loads(str(read_arrays(run.explanations)["facts"]))["predictions"]
    kinds = set()
    for answer in answers:
        true, said = (set(filter(None, answer[key].split("|"))) for key in ("true", "predicted"))
        assert true != said
        assert not said - true or answer["target"] in said - true
        kinds.add(bool(said - true))
    assert kinds == {True, False}


def test_the_report_opens_the_images_behind_an_error(run: RunFolder, browser: Browser) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(run.report.as_uri())
    val = read_json(run.metrics)["val"]
    assert page.locator(".tiles dd").all_inner_texts()[0].startswith(f"{val['accuracy']:.2%}")
    missed, false = ([row[key] for row in val["classes"].values()] for key in ("missed", "false"))
    cells = page.locator("#errors tbody tr").all()
    assert [cell.locator("td").all_inner_texts()[1:] for cell in cells] == [
        [str(a or ""), str(b or "")] for a, b in zip(missed, false, strict=True)
    ]
    worst = int(np.argmax(false))
    cells[worst].locator("td button").last.click()
    assert page.locator("#errors .gallery figure:visible").count() == false[worst] > 0
    for caption in page.locator("#errors .gallery figure:visible figcaption").all_inner_texts():
        assert CLASSES[worst] in caption.split("→")[1] and CLASSES[worst] not in caption.split("→")[0]
    assert page.locator("#classes > .scroll thead th").all_inner_texts()[-2:] == ["AP", "ROC AUC"]
    assert page.locator("img[alt*=onfusion]").count() == 0
    assert not (run.plots / "confusion_matrix.png").exists() and (run.plots / "reliability.png").exists()
    page.close()
    assert said == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_val_says_what_a_split_comes_to(run: RunFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path, split: str) -> None:
    assert main(["val", str(run.path), "--split", split, "--output", str(tmp_path / "rows.csv")]) == 0
    printed, rows = capsys.readouterr().out, read_rows(tmp_path / "rows.csv")
    assert [row["true"] for row in rows] == label_text(splits()[split].labels, CLASSES)
    exact = np.mean([row["true"] == row["predicted"] for row in rows])
    assert f"exact match     {exact:.2%} (95% CI " in printed
    for text in ("mAP", "micro F1", "macro F1", "Hamming loss", "ROC AUC"):
        assert text in printed
    assert "confus" not in printed


def test_a_file_predicts_as_the_network(run: RunFolder) -> None:
    trained, _ = load_run(run.path)
    logits = trained.predict_logits(splits()["val"].images)
    answers = Predictor(run.export / "model.onnx")(splits()["val"].images)
    np.testing.assert_allclose(
        answers.probabilities, label_probabilities(logits / trained.preprocessing.temperature), atol=1e-5
    )
    np.testing.assert_array_equal(answers.predicted_mask, logits > 0)
    np.testing.assert_allclose(answers.confidences, label_confidence(logits / trained.preprocessing.temperature), rtol=1e-3)
    assert (answers.probabilities.sum(axis=1) > 1.2).any()  # no softmax
    files, exact = read_json(run.export / "parity.json")["files"], read_json(run.metrics)["val"]["accuracy"]
    assert set(files) == {"model.onnx", "model-fp16.onnx", "model-int8.onnx"}
    assert files["model.onnx"]["agreement"] == 1
    assert files["model.onnx"]["accuracy"] == files["model.onnx"]["network_accuracy"] == exact
    for name in files:
        found = Predictor(run.export / name)(splits()["val"].images)
        assert files[name]["accuracy"] == accuracy_score(splits()["val"].labels, found.predicted_mask)


def test_a_file_says_what_it_is(run: RunFolder) -> None:
    predictor = Predictor(run.export / "model.onnx")
    assert (predictor.preprocessing.task, predictor.threshold) == ("multi-label", 0.5)
    val = read_json(run.metrics)["val"]
    assert predictor.metadata["metrics"]["mean_average_precision"] == val["mean_average_precision"]
    card, precision = (run.export / "README.md").read_text(), f"mAP {val['mean_average_precision']:.2%}"
    assert f"Exact match on 100 validation images: {val['accuracy']:.2%} (95% CI" in card
    assert "probability above 0.5" in card and "normalisation; sigmoid" in card and precision in card
    opened, loaded = load_run(run.path)[0], load(run.export)
    assert loaded.task.name == "multi-label"
    np.testing.assert_array_equal(loaded.predict_logits(splits()["val"].images), opened.predict_logits(splits()["val"].images))


def test_predictions_are_sets_of_labels(run: RunFolder) -> None:
    answers = Predictor(run.export / "model.onnx")(splits()["val"].images)
    for text, labels, best, row in zip(answers.labels, answers.label_sets, answers.top(4), answers.probabilities, strict=True):
        assert text == "|".join(name for name, probability in zip(CLASSES, row, strict=True) if probability > 0.5)
        assert labels == [(name, probability) for name, probability in best if probability > 0.5]
        assert [probability for _, probability in best] == sorted(row.tolist(), reverse=True)
    assert {len(labels) for labels in answers.label_sets} >= {1, 2, 3}


def test_the_gate_refuses_a_softmax(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = (run.export / "model.onnx").read_bytes()
    monkeypatch.setattr(
        "sprintnet.deploy.export.export.build_graph",
        lambda trained, outputs: build_graph(
            replace(trained, preprocessing=replace(trained.preprocessing, task="single-label")), outputs
        ),
    )
    with pytest.raises(ParityError, match=r"equal predictions for .* a probability differs by"):
        export(run.path)
    assert (run.export / "model.onnx").read_bytes() == kept


def test_predict_writes_all_labels(run: RunFolder, files: list[str], sprintnet: Command) -> None:
    expected = Predictor(run.export / "model.onnx")(files)
    command = ["predict", str(run.export / "model.onnx"), *files]
    listed = json.loads(sprintnet(*command, "--format", "json").stdout)
    assert [row["predicted"] for row in listed] == expected.labels
    assert [[label["class"] for label in row["labels"]] for row in listed] == [
        [name for name, _ in labels] for labels in expected.label_sets
    ]
    assert [len(row["top"]) for row in listed] == [3] * len(files)
    rows = list(csv.DictReader(io.StringIO(sprintnet(*command, "--format", "csv").stdout)))
    assert [row["predicted"] for row in rows] == expected.labels
    assert [float(row["confidence"]) for row in rows] == pytest.approx(expected.confidences, abs=1e-5)
    table = sprintnet(*command).stdout.splitlines()
    for line, labels in zip(table[1:], expected.label_sets, strict=True):
        shown = " | ".join(f"{name} {probability:.2%}" for name, probability in labels)
        assert line.startswith(shown or "no label")
    unsure = sprintnet(*command, "--abstain-below", "1").stdout.splitlines()
    assert all(" ? " in line for line in unsure[1:])


def test_data_of_the_other_kind_is_refused(run: RunFolder) -> None:
    trained, _ = load_run(run.path)
    single = replace(splits()["val"], labels=splits()["val"].labels.argmax(axis=1))
    with pytest.raises(SettingsError, match="the data is single-label, the model multi-label"):
        trained.predict(single)


def test_the_learning_rate_finder_takes_labels_too(run: RunFolder, tmp_path: Path) -> None:
    (found,) = lr_find(load_config(run.config), RunFolder(tmp_path / "lr"), rates=30, lowest=1e-4)
    assert found["suggestions"]["steepest"] > 0


def test_marks_in_an_archive_are_labels_too(tmp_path: Path, sprintnet: Command) -> None:
    arrays = {f"{split}_{kind}": getattr(part, kind) for split, part in splits().items() for kind in ("images", "labels")}
    np.savez(tmp_path / "shapes.npz", classes=np.array(CLASSES), **arrays)
    done = sprintnet("train", "davidnet", "--data", "shapes.npz", "--name", "a", "--no-report", *TINY[2:])
    assert done.returncode == 0, done.stderr
    assert "exact match" in done.stdout and "mAP" in done.stdout
    run = RunFolder(tmp_path / "runs" / "train" / "a")
    np.testing.assert_array_equal(read_arrays(run.predictions)["val_labels"], splits()["val"].labels)
    for names in (CLASSES[1:], ("a|b", *CLASSES[1:])):
        np.savez(tmp_path / "wrong.npz", classes=np.array(names), **arrays)
        wrong = sprintnet("train", "davidnet", "--data", "wrong.npz", *TINY[2:])
        assert wrong.returncode == 3
        rule = (
            "class names must differ, not be empty and not contain |" if len(names) == 4 else "has 4 columns and 3 class names"
        )
        assert rule in wrong.stderr


def test_a_table_may_say_that_an_image_has_no_label(run: RunFolder) -> None:
    kept = read_rows(run.splits)
    none = [row for row in kept if row["label"] == "|"]
    assert len(none) == sum((~part.labels.any(axis=1)).sum() for part in (splits()["train"], splits()["val"], splits()["test"]))
    assert {row["label"] for row in kept} > {"bar", "bar|cross|ring|square"}


def test_check_counts_images_not_labels(run: RunFolder, sprintnet: Command) -> None:
    said = sprintnet("check", str(run.path.parents[2] / "shapes.csv")).stdout
    assert "500 labelled images of 4 classes" in said
    assert re.search(rf"^bar +{splits()['train'].labels[:, 0].sum()} ", said, re.MULTILINE)
    assert re.search(r"^all +300 +100 +100$", said, re.MULTILINE)
