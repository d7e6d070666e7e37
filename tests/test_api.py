"""The Python API: a run trained by it agrees with the command line and the export; messages name Python arguments."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import sprintnet as sn
from conftest import SAMPLE
from shapes import CLASSES, shapes
from sprintnet.api import configure

TINY: dict[str, Any] = {
    "model__width": 8, "epochs": 8, "batch_size": 32, "threads": 1, "optim__max_lr": 0.1, "precision": "fp32"
}  # fmt: skip
FILES = sorted(SAMPLE.glob("test/*/*.png"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def data() -> sn.Dataset:
    return sn.load_data(SAMPLE, val=0.5)


@pytest.fixture(scope="module")
def model(folder: Path, data: sn.Dataset) -> sn.Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return sn.train("davidnet", data, name="tiny", **TINY)


@pytest.fixture(scope="module")
def exported(folder: Path, model: sn.Model) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return model.export(folder / "cats.onnx", quantize="int8").with_name("cats.onnx")


def predictions(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


# data


def test_a_dataset_is_described_in_a_line_and_drawn(data: sn.Dataset) -> None:
    assert len(repr(data).splitlines()) == 1
    assert repr(data.val) == "ImageDataset(100 images 32x32x3; 10 classes)"
    assert "100 train, 100 val, 100 test; images 32x32x3; 10 classes: airplane" in repr(data)
    figure = data.show(12)
    assert isinstance(figure, Figure)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert len(titles) == 12
    assert set(titles) == set(data.classes)


def test_arrays_are_split_by_class() -> None:
    images, labels = np.random.default_rng(0).random((200, 8, 8)), np.arange(200) % 4
    data = sn.from_arrays(images, labels, classes=["a", "b", "c", "d"], test=0.1, val=0.2)
    sizes = {name: len(part) for name, part in (("train", data.train), ("val", data.val), ("test", data.test)) if part}
    assert sizes == {"train": 144, "val": 36, "test": 20}
    assert data.image_shape == (8, 8, 1)
    assert np.bincount(data.test.labels).tolist() == [5] * 4


# training


def test_training_leaves_a_run_like_that_of_the_command(model: sn.Model, folder: Path) -> None:
    assert model.run == Path("runs/train/tiny")
    assert {path.name for path in model.run.iterdir()} >= {"config.toml", "metrics.json", "results.csv", "weights.safetensors"}
    assert "test" not in model.metrics
    assert len(model.history) == model.config.epochs
    assert {"epoch", "train_loss", "val_accuracy"} <= set(model.history.columns)
    assert repr(model).startswith("Model(davidnet, epochs=8: val accuracy")
    assert repr(model).endswith("; runs/train/tiny)")


def test_a_run_is_named_after_its_recipe_and_counted(data: sn.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no other test has trained
    settings = {**TINY, "epochs": 1}
    assert [sn.train("davidnet", data, **settings).run.name for _ in range(2)] == ["davidnet", "davidnet-2"]


def test_predictions_are_those_of_the_run(model: sn.Model, data: sn.Dataset) -> None:
    rows = predictions(model.run / "predictions.csv")
    assert model.predict(data.val) == [row["predicted"] for row in rows]
    assert len({row["predicted"] for row in rows}) > 3
    confidences = np.array([float(row["confidence"]) for row in rows])
    assert np.allclose(model.predict_proba(data.val).max(1), confidences, atol=1e-4)


def test_evaluate_is_what_training_measured(model: sn.Model, data: sn.Dataset) -> None:
    assert model.evaluate(data.val)["accuracy"] == model.metrics["val"]["accuracy"]


def test_an_evaluation_on_test_images_is_logged(model: sn.Model, data: sn.Dataset) -> None:
    log = model.run / "test_access.csv"
    before = len(predictions(log)) if log.exists() else 0
    model.evaluate(data.train)
    metrics = model.evaluate(data.test, tta=1.0)
    assert metrics["images"] == 100
    assert metrics["tta"]["fraction"] == 1
    rows = predictions(log)
    assert len(rows) == before + 1
    assert rows[-1]["command"] == "Model.evaluate"


def test_images_may_come_in_any_form(model: sn.Model) -> None:
    expected = model.predict_proba([str(file) for file in FILES[:3]])
    assert expected.shape == (3, 10)
    assert np.allclose(expected.sum(1), 1, atol=1e-5)
    arrays = np.stack([np.asarray(Image.open(file)) for file in FILES[:3]])
    for images in (
        FILES[:3],
        (Image.open(file) for file in FILES[:3]),
        arrays,
        arrays / 255,
        (arrays / 255).astype(np.float32),
        list(arrays),
        iter([FILES[0], Image.open(FILES[1]), arrays[2]]),
    ):
        assert np.allclose(model.predict_proba(images), expected, atol=1e-5)
    for image in (FILES[0], str(FILES[0]), Image.open(FILES[0]), arrays[0]):
        assert np.allclose(model.predict_proba(image), expected[:1], atol=1e-5)
    assert model.predict([]) == []
    assert model.predict_proba([]).shape == (0, 10)
    grey = np.asarray(Image.open(FILES[0]).convert("L"))
    assert np.allclose(model.predict_proba(grey), model.predict_proba(np.repeat(grey[..., None], 3, 2)), atol=1e-5)


def test_images_of_any_size_are_resized(model: sn.Model) -> None:
    large = Image.open(FILES[0]).resize((50, 70))
    assert model.predict([large, FILES[0]])[1] == model.predict(FILES[0])[0]
    assert model.predict_proba(large).shape == (1, 10)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 32, 32), np.uint8), "uint8 of shape (3, 32, 32)"),
        (np.zeros((32, 32, 3), np.int64), "int64 of shape (32, 32, 3)"),
        (np.full((32, 32, 3), 2.0), "floats from 0 to 2; must be in 0..1"),
        ([np.nan * np.zeros((32, 32, 3))], "must be in 0..1"),
        (["nowhere.png"], "nowhere.png"),
        ([7], "images: int"),
        (7, "int"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_image_is_refused(model: sn.Model, images: Any, message: str) -> None:
    with pytest.raises(sn.SprintNetError) as caught:
        model.predict(images)
    assert message in str(caught.value)


# figures, report, export


def test_figures_are_returned(model: sn.Model, data: sn.Dataset) -> None:
    for figure in (model.plot("confusion_matrix"), model.explain(data.val, n=3), model.explain(FILES[:2])):
        assert isinstance(figure, Figure)
    with pytest.raises(sn.SettingsError, match="confusion_matrix, "):
        model.plot("confusion")
    with pytest.raises(sn.SettingsError, match="target_class='lion': must be predicted, true or one of "):
        model.explain(FILES[:2], target_class="lion")
    with pytest.raises(sn.SettingsError, match="n=0: at least 1 image is needed"):
        model.explain(data.val, n=0)


def test_the_export_predicts_as_the_model(model: sn.Model, exported: Path) -> None:
    predictor = sn.load(model.run / "export" / "model.onnx")
    assert isinstance(predictor, sn.Predictor)
    assert np.abs(predictor(FILES).probabilities - model.predict_proba(FILES)).max() < 1e-3
    assert exported.read_bytes() == (model.run / "export" / "model-int8.onnx").read_bytes()


def test_a_model_is_loaded_from_its_run_and_its_weights(model: sn.Model, exported: Path, data: sn.Dataset) -> None:
    expected = model.predict_proba(FILES)
    for path in (model.run, "tiny"):
        loaded = sn.load(path)
        assert isinstance(loaded, sn.Model)
        assert np.allclose(loaded.predict_proba(FILES), expected, atol=1e-6)
        assert loaded.metrics == model.metrics
    for path in (model.run / "weights.safetensors", model.run / "export"):
        weights = sn.load(path)
        assert isinstance(weights, sn.Model)
        found = weights.predict_proba(FILES)  # in fp32, the run's perhaps in bf16
        assert np.allclose(found, expected, atol=0.05)
        second, first = np.sort(expected)[:, -2:].T
        clear = first - second > 0.1
        assert (found.argmax(1) == expected.argmax(1))[clear].all()
        assert weights.evaluate(data.val)["images"] == 100
        assert "without a run folder" in repr(weights)
        for use in (lambda each: each.metrics, lambda each: each.report(), lambda each: each.plot("results")):
            with pytest.raises(sn.SettingsError, match="loaded without its run folder"):
                use(weights)


# arrays and several labels


def test_a_model_of_arrays_is_trained_evaluated_and_exported() -> None:
    images, labels = np.zeros((60, 16, 16), np.uint8), np.arange(60) % 3
    images += (40 + 80 * labels[:, None, None] + np.random.default_rng(0).integers(0, 9, images.shape)).astype(np.uint8)
    data = sn.from_arrays(images, labels, classes=["dark", "grey", "light"])
    model = sn.train("davidnet", data, **TINY)
    assert model.config.data.name == "(arrays)"
    assert model.evaluate(data.test)["images"] == 12
    assert set(model.predict(data.test)) <= set(data.classes)
    assert model.export().name == "model.onnx"
    with pytest.raises(sn.DataError, match=r"^data=\(arrays\): "):
        sn.load(model.run).export()


def test_a_multi_label_model_predicts_lists() -> None:
    drawn = shapes(60, 0)
    data = sn.from_arrays(drawn.images, drawn.labels, classes=CLASSES)
    model = sn.train("davidnet", data, **TINY)
    predicted = model.predict(drawn.images[:5])
    assert all(isinstance(labels, list) and set(labels) <= set(CLASSES) for labels in predicted)
    assert model.predict_proba(drawn.images[:5]).shape == (5, 4)


# studies


def test_studies_display_their_tables_and_are_compared(data: sn.Dataset) -> None:
    settings = {**TINY, "epochs": 1}
    found = sn.study("davidnet", data, seeds=2, **settings)
    assert "95% CI of the mean" in repr(found)
    assert [len(found.details), found.path] == [2, Path("runs/study/davidnet")]
    sn.study("davidnet", data, seeds=2, name="slower", **{**settings, "optim__max_lr": 0.02})
    compared = sn.compare(found, "runs/study/slower")
    assert "runs needed" in repr(compared)
    assert compared.details["accuracy"].a.mean == np.mean([each["val"]["accuracy"] for each in found.details])


def test_a_check_displays_the_contents() -> None:
    found = sn.check(SAMPLE)
    assert "300 labelled images of 10 classes" in repr(found)
    assert sum(found.details.images.values()) == 300


def test_the_learning_rate_finder_has_a_figure(data: sn.Dataset) -> None:
    found = sn.lr_find("davidnet", data, **TINY)
    assert "steepest" in repr(found)
    assert isinstance(found.plot(), Figure)


# messages


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sn.train("davidnet", optim__max_lr=-1), "optim__max_lr=-1: must be "),
        (
            lambda: sn.train("davidnet", optim__max_lrr=1),
            "optim__max_lrr=1: there is no such setting; did you mean optim__max_lr",
        ),
        (lambda: sn.train("davidnet", epochs=0, lr_find=1), "lr_find=1: must be true or false"),
        (lambda: sn.train("davidnet", SAMPLE, data__val=0.9), "data__val=0.9: must be "),
        (lambda: sn.train("sprint49"), "sprint94"),
        (lambda: sn.train(sn, "runs/x"), "recipe: module; must be a recipe's name or the path of a .toml file: train("),
        (lambda: sn.train("davidnet", np.zeros(3)), "data: ndarray; must be a Dataset, a dataset's name or a path"),
        (lambda: sn.train("davidnet", "nowhere"), "data=nowhere: "),
        (lambda: sn.train("davidnet", SAMPLE, name="tiny"), "name='tiny': runs/train/tiny exists; "),
        (lambda: sn.load_data("nowhere"), "name=nowhere: "),
        (lambda: sn.load_data(SAMPLE, val=2), "val=2: must be "),
        (lambda: sn.check("nowhere"), "data=nowhere: "),
        (
            lambda: sn.from_arrays(np.zeros((3, 8, 8)), [0, 1, 0], size=16),
            "size: not for arrays, which take val, test and dedupe; resize or convert the images before",
        ),
        (lambda: sn.load_data(SAMPLE, sise=2), "sise=2: there is no such setting; did you mean size?"),
        (lambda: sn.from_arrays(np.zeros((3, 8, 8)), [0, 1]), "labels: has 2 entries for 3 images"),
        (lambda: sn.load("nowhere"), "nowhere: no such "),
        (lambda: sn.load("nowhere.onnx"), "nowhere.onnx: No such file"),
        (lambda: sn.compare("nowhere", "nowhere"), "nowhere: no such "),
        (lambda: sn.study("davidnet", SAMPLE, seeds=1), "seeds=1: a standard deviation needs two or more"),
        (lambda: sn.lr_find("davidnet", SAMPLE, seeds=0), "seeds=0: must be at least 1"),
        (
            lambda: sn.check(sn.from_arrays(np.random.default_rng(0).random((40, 8, 8)), [0, 1] * 20)),
            "data: made from arrays; ",
        ),
    ],
)
def test_messages_name_python_arguments(model: sn.Model, call: Any, message: str) -> None:
    with pytest.raises(sn.SprintNetError) as caught:
        call()
    assert message in str(caught.value)


def test_settings_of_data_belong_to_the_dataset(data: sn.Dataset) -> None:
    with pytest.raises(sn.SettingsError, match=r"^data__val: the Dataset has its settings already; give this to load_data"):
        sn.train("davidnet", data, data__val=0.1)


def test_images_that_were_loaded_in_another_size_than_the_recipes_are_refused(data: sn.Dataset) -> None:
    with pytest.raises(
        sn.SettingsError, match=r"asks for; use load_data\('.*', size=224, resize='crop', channels='rgb', val=0\.5"
    ):
        sn.train("photos", data)
    stretched = sn.load_data(SAMPLE, size=32, val=0.3)
    assert configure("photos", stretched, {})[0].data == stretched.settings


def test_evaluate_needs_a_split(model: sn.Model, data: sn.Dataset) -> None:
    for wrong in (None, data, "test"):
        with pytest.raises(sn.SettingsError, match=r"^split: .* must be a split that the dataset has"):
            model.evaluate(wrong)


def test_data_of_another_shape_is_refused(model: sn.Model, data: sn.Dataset) -> None:
    for settings, shape in (({"size": 16}, "16x16x3"), ({"channels": "grey"}, "32x32x1")):
        with pytest.raises(sn.SettingsError, match=f"the data has images {shape}, the model takes 32x32x3; set data__size"):
            model.evaluate(sn.load_data(SAMPLE, **settings).val)


def test_arguments_of_export_and_show_are_checked_first(model: sn.Model, data: sn.Dataset) -> None:
    with pytest.raises(sn.SettingsError, match="quantize='int4': must be fp16 or int8, or None"):
        model.export(quantize="int4")
    with pytest.raises(sn.SettingsError, match=r"path='nowhere/a\.onnx': is in no folder that exists"):
        model.export("nowhere/a.onnx")
    with pytest.raises(sn.SettingsError, match=r"path='a\.onx': must end in \.onnx"):
        model.export("a.onx")
    with pytest.raises(sn.SettingsError, match="n=0: must be at least 1"):
        data.show(0)


def test_a_repeated_run_is_named_after_the_first(model: sn.Model, data: sn.Dataset) -> None:
    assert sn.train(model.run / "config.toml", data).run.name == "tiny-2"


def test_positional_arguments_beyond_the_data_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="takes from 0 to 2 positional arguments"):
        sn.train("davidnet", SAMPLE, 3)  # type: ignore[misc]


def test_predicting_from_an_export_needs_no_torch(exported: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["matplotlib"] = None
import sprintnet as sn
print(sn.load({str(exported)!r})({str(FILES[0])!r}).labels, sn.load_data({str(SAMPLE)!r}))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
