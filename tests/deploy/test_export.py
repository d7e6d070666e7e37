"""Exported files compared with the trained model, Grad-CAM and Pillow's resizing; model card; parity gate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from onnx.reference import ReferenceEvaluator
from PIL import Image
from torch.nn import functional as F

from conftest import SAMPLE, Command
from sprintnet.config import load_config
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits
from sprintnet.deploy.export.card import model_card
from sprintnet.deploy.export.export import export
from sprintnet.deploy.export.graph import build_graph, to_bytes
from sprintnet.deploy.export.parity import check_parity
from sprintnet.deploy.export.variants import _calibration_images, to_fp16, to_int8
from sprintnet.deploy.predictions import OUTPUTS
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.run_predictor import RunPredictor
from sprintnet.errors import ParityError, SettingsError
from sprintnet.evaluation.gradcam import class_maps
from sprintnet.evaluation.trained_model import load, load_run
from sprintnet.reporting.text.export import parity_lines
from sprintnet.runs.folder import RunFolder, read_json, read_rows
from sprintnet.training.train import train

NETWORKS = ("davidnet", "sprintnet")
FP32 = ["precision=fp32"]


def copied(run: RunFolder, into: Path) -> RunFolder:
    """Returns a copy of a run that a test may change."""
    return RunFolder(shutil.copytree(run.path, into / "copy"))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_matches_the_trained_model(exported: dict[str, RunFolder], network: str, val: ImageDataset) -> None:
    run = exported[network]
    trained, _ = load_run(run.path, FP32)
    assert trained.preprocessing.temperature is not None
    logits = trained.predict_logits(val.images)
    predictions = Predictor(run.export / "model.onnx")(val.images)
    assert predictions.classes == val.classes
    np.testing.assert_allclose(predictions.logits, logits, atol=1e-4)
    probabilities = trained.preprocessing.probabilities(logits)
    np.testing.assert_allclose(predictions.probabilities, probabilities, atol=1e-5)
    row = read_json(run.export / "parity.json")["files"]["model.onnx"]
    assert (row["images"], row["agreement"]) == (100, 1)
    assert row["largest_difference"] < 1e-5
    assert row["accuracy"] == row["network_accuracy"] == np.mean(logits.argmax(1) == val.labels)


@pytest.mark.parametrize("tta", ["flip", "all"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_with_views_predicts_as_the_trained_model_with_tta(
    exported: dict[str, RunFolder], network: str, tta: str, val: ImageDataset, tmp_path: Path
) -> None:
    run = copied(exported[network], tmp_path)
    plain = Predictor(run.export / "model.onnx")
    export(run.path, tta=tta)
    trained, _ = load_run(run.path, FP32)
    with_tta = replace(trained, preprocessing=trained.preprocessing.with_tta(tta))
    logits = with_tta.predict_logits(val.images)
    predictor = Predictor(run.export / "model.onnx")
    found = predictor(val.images)
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    np.testing.assert_allclose(found.probabilities, trained.preprocessing.with_tta(tta).probabilities(logits), atol=1e-5)
    np.testing.assert_allclose(found.activation_maps, plain(val.images).activation_maps, atol=1e-4)  # of the image itself
    assert np.abs(logits - trained.predict_logits(val.images)).max() > 0.01
    accuracy = np.mean(logits.argmax(1) == val.labels)
    assert read_json(run.export / "parity.json")["files"]["model.onnx"]["accuracy"] == accuracy
    card = (run.export / "README.md").read_text()
    assert f"Accuracy on 100 validation images: {accuracy:.2%}" in card
    assert "with test-time augmentation (TTA): it averages" in card
    with pytest.raises(SettingsError, match="averages views already, as it was exported; leave it out"):
        Predictor(run.export / "model.onnx", tta=True)


def test_an_export_that_looks_at_the_test_set_is_logged(tmp_path: Path, tiny: list[str]) -> None:
    config, run = load_config("davidnet", [*tiny, "epochs=1"]), RunFolder(tmp_path / "run")
    parts = load_splits(config.data)
    splits = {"train": parts["train"], "test": parts["val"]}
    train(config, run, splits=splits)
    export(run.path, splits=splits)
    rows = [(row["command"], row["images"]) for row in read_rows(run.test_access)]
    assert rows == [("train", "100"), ("export", "100")]


def test_the_predictor_averages_views_itself(
    exported: dict[str, RunFolder], model: Path, val: ImageDataset, tmp_path: Path
) -> None:
    trained, _ = load_run(exported["davidnet"].path, FP32)
    logits = replace(trained, preprocessing=trained.preprocessing.with_tta("all")).predict_logits(val.images)
    predictor = Predictor(model, tta=True)
    found = predictor(val.images)
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    np.testing.assert_allclose(found.probabilities, trained.preprocessing.with_tta("all").probabilities(logits), atol=1e-5)
    assert found.probabilities.dtype == np.float32
    by_run = RunPredictor(exported["davidnet"].path, tta=True)(val.images)
    np.testing.assert_allclose(by_run.probabilities, found.probabilities, atol=1e-5)
    run = copied(exported["davidnet"], tmp_path)
    export(run.path, outputs=("probabilities",))
    with pytest.raises(SettingsError, match="has no output logits, which are averaged; export it with all outputs"):
        Predictor(run.export / "model.onnx", tta=True)


@pytest.mark.parametrize("tta", [None, "all"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_variant_is_sound_and_the_reference_evaluator_agrees(
    exported: dict[str, RunFolder], network: str, tta: str | None, train: ImageDataset
) -> None:
    trained, _ = load_run(exported[network].path, FP32)
    exact = build_graph(replace(trained, preprocessing=trained.preprocessing.with_tta(tta)), OUTPUTS)
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 36, 3), dtype=np.uint8)
    for variant, far in ((exact, 1e-3), (to_fp16(exact), 0.01), (to_int8(exact, train), 0.05)):
        onnx.checker.check_model(variant, full_check=True)
        quantised = {name for node in variant.graph.node if node.op_type == "QuantizeLinear" for name in node.input}
        assert not quantised & {name for node in variant.graph.node if node.op_type == "Gemm" for name in node.output}
        with np.errstate(all="ignore"):  # its sigmoid computes both of two branches
            expected = ReferenceEvaluator(variant).run(["probabilities"], {"images": images})[0]
        session = onnxruntime.InferenceSession(variant.SerializeToString())
        np.testing.assert_allclose(session.run(["probabilities"], {"images": images})[0], expected, atol=far)


@pytest.mark.parametrize("network", NETWORKS)
def test_activation_maps_are_grad_cam(exported: dict[str, RunFolder], network: str, val: ImageDataset) -> None:
    run = exported[network]
    trained, _ = load_run(run.path, FP32)
    images = val.images[::25]
    maps = Predictor(run.export / "model.onnx")(images).activation_maps
    assert maps is not None
    assert maps.shape[:2] == (4, 10)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (trained.preprocessing.normalisation.mean, trained.preprocessing.normalisation.std)
    )
    trained.model.eval()
    for k in range(10):
        fine = F.interpolate(torch.from_numpy(maps[:, k : k + 1]), size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
        shown = fine / fine.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
        layer = trained.model.feature_layers[-1]
        expected = class_maps(trained.model, (pixels - mean) / std, torch.full((4,), k), [layer])
        torch.testing.assert_close(shown, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("size", [(64, 48), (100, 31), (20, 20)])
def test_other_sizes_are_resized_as_pillow_does(model: Path, size: tuple[int, int], val: ImageDataset) -> None:
    predictor = Predictor(model)
    large = np.asarray(Image.fromarray(val.images[7]).resize(size, Image.Resampling.BICUBIC))
    resized = np.asarray(Image.fromarray(large).resize((32, 32), Image.Resampling.BILINEAR))
    predictions = predictor([large, val.images[0], resized])  # sizes may be mixed
    np.testing.assert_allclose(predictions.probabilities[0], predictions.probabilities[2], atol=0.01)
    np.testing.assert_allclose(predictions.probabilities[1], predictor(val.images[:1]).probabilities[0], atol=1e-6)


def test_a_file_contains_its_metadata_and_no_local_paths(
    exported: dict[str, RunFolder], tmp_path: Path, val: ImageDataset
) -> None:
    run = exported["sprintnet"]
    content = (run.export / "model.onnx").read_bytes()
    file = onnx.load_from_string(content)
    onnx.checker.check_model(file, full_check=True)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in file.graph.initializer)
    assert not any(node.op_type == "BatchNormalization" for node in file.graph.node)
    assert not any(part.metadata_props or part.doc_string for part in (*file.graph.node, *file.graph.value_info))
    assert b"site-packages" not in content and bytes(SAMPLE.parent) not in content
    assert [entry.name for entry in file.graph.output] == list(OUTPUTS)
    facts = Predictor(run.export / "model.onnx").metadata
    metrics = json.loads(run.metrics.read_text())
    assert facts["preprocessing"]["classes"] == list(val.classes)
    assert facts["preprocessing"]["image_shape"] == [32, 32, 3]
    assert facts["preprocessing"]["temperature"] == metrics["temperature"]
    own = read_json(run.export / "parity.json")["files"]["model.onnx"]
    assert facts["metrics"]["accuracy"] == own["accuracy"]  # the file's
    (tmp_path / "recipe.toml").write_text(facts["recipe"])
    expected = load_config(run.config, ["data.name=sample"])
    assert load_config(tmp_path / "recipe.toml") == expected
    assert facts["data_sha256"] == read_json(run.environment)["data_sha256"]
    assert facts["license"] == "unknown"
    assert facts["parity"]["agreement"] == 1


def test_a_norm_with_a_negative_scale_is_not_folded(exported: dict[str, RunFolder], val: ImageDataset) -> None:
    trained, _ = load_run(exported["davidnet"].path, FP32)
    with torch.no_grad():
        trained.model.get_parameter("block1.norm.weight")[0] *= -1
    graph = build_graph(trained, ("logits", "probabilities"))
    assert [node.op_type for node in graph.graph.node].count("BatchNormalization") == 1
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    np.testing.assert_allclose(
        session.run(["logits"], {"images": val.images})[0], trained.predict_logits(val.images), atol=1e-4
    )


def test_reduced_precision_files_predict_alike(
    exported: dict[str, RunFolder], tmp_path: Path, val: ImageDataset, train: ImageDataset
) -> None:
    file = onnx.load(exported["davidnet"].export / "model.onnx")
    exact = Predictor(exported["davidnet"].export / "model.onnx")(val.images)
    for name, smaller, far in (("fp16", to_fp16(file), 0.01), ("int8", to_int8(file, train), 0.04)):
        (tmp_path / f"{name}.onnx").write_bytes(to_bytes(smaller))
        predictions = Predictor(tmp_path / f"{name}.onnx")(val.images)
        assert 0 < np.abs(predictions.probabilities - exact.probabilities).max() < far, name
        assert predictions.activation_maps is not None
    quantized = [tensor for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer if len(tensor.dims) == 4]
    values = [onnx.numpy_helper.to_array(tensor) for tensor in quantized if tensor.data_type == onnx.TensorProto.INT8]
    assert max(np.abs(each.astype(int)).max() for each in values) == 64  # more would saturate where there is no VNNI
    weights = [tensor for tensor in onnx.load(tmp_path / "fp16.onnx").graph.initializer if len(tensor.dims) == 4]
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in weights}


def test_a_model_card_of_few_images_claims_no_result(exported: dict[str, RunFolder]) -> None:
    folder, (trained, _) = exported["davidnet"].export, load_run(exported["davidnet"].path)
    properties = {row.key: row.value for row in onnx.load(folder / "model.onnx").metadata_props}
    table = read_json(folder / "parity.json")
    row = table["files"]["model.onnx"]
    for images, is_measured in ((100, True), (99, False)):
        row["images"] = row["metrics"]["images"] = images
        for temperature in (trained.preprocessing.temperature, None):
            card = model_card(replace(trained.preprocessing, temperature=temperature), properties, table)
            assert ("model-index" in card) == ("calibration error" in card) == is_measured
            assert (f"{100 * row['metrics']['ece']:.2f}%" in card) == is_measured
        calibrated = model_card(trained.preprocessing, properties, table)
        assert (f"{images} images are too few to measure how well" in calibrated) != is_measured


@pytest.mark.parametrize("idle", [True, False])
def test_a_speed_beside_other_processes_is_said_to_be_one(exported: dict[str, RunFolder], idle: bool) -> None:
    folder, (trained, _) = exported["davidnet"].export, load_run(exported["davidnet"].path)
    properties = {row.key: row.value for row in onnx.load(folder / "model.onnx").metadata_props}
    table = read_json(folder / "parity.json")
    assert isinstance(table["hardware"]["idle"], bool)
    table["hardware"]["idle"] = idle
    assert ("other processes kept cores busy" in model_card(trained.preprocessing, properties, table)) != idle
    assert ("caution: other processes kept cores busy" in "\n".join(parity_lines(table))) != idle


def test_the_folder_is_ready_for_the_hub(exported: dict[str, RunFolder], val: ImageDataset) -> None:
    folder = exported["davidnet"].export
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "model.onnx", "model.safetensors", "parity.json", "samples"}
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    accuracy = read_json(folder / "parity.json")["files"]["model.onnx"]["accuracy"]
    assert card["library_name"] == "sprintnet"
    assert card["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": accuracy}]
    assert f"Accuracy on 100 validation images: {accuracy:.2%} (95% CI" in body
    opened, _ = load_run(exported["davidnet"].path)
    torch.manual_seed(5)
    loaded = load(folder)
    assert torch.initial_seed() == 5  # opening a model draws nothing and seeds nothing
    np.testing.assert_array_equal(loaded.predict_logits(val.images), opened.predict_logits(val.images))
    for wrong in (val.images[:, ::2], val.images[..., :1], val.images / 255):
        with pytest.raises(SettingsError, match=r"the model takes uint8 \(N, 32, 32, 3\)"):
            loaded.predict_logits(wrong)


def test_a_file_that_differs_is_not_kept(
    exported: dict[str, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(exported["davidnet"], tmp_path)
    kept = (run.export / "model.onnx").read_bytes()
    built = build_graph(load_run(run.path, FP32)[0], OUTPUTS)
    for tensor in built.graph.initializer:  # all logits three times as large: the same classes, other probabilities
        if "linear." in tensor.name:
            changed = onnx.numpy_helper.to_array(tensor) * np.float32(3)
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    monkeypatch.setattr("sprintnet.deploy.export.export.build_graph", lambda trained, outputs: built)
    with pytest.raises(ParityError, match=r"model.onnx does not match the trained model .* a probability differs by"):
        export(run.path)
    assert not (run.path / ".export").exists()
    assert (run.export / "model.onnx").read_bytes() == kept  # the earlier export stays
    shutil.rmtree(run.export)
    with pytest.raises(ParityError):
        export(run.path)
    assert not run.export.exists()


def test_a_reduced_file_that_loses_accuracy_is_refused(
    exported: dict[str, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: ImageDataset
) -> None:
    run = copied(exported["davidnet"], tmp_path)

    def spoiled(model: onnx.ModelProto, images: object) -> onnx.ModelProto:
        made = to_int8(model, train)
        weight = next(tensor for tensor in made.graph.initializer if tensor.name.endswith("linear.weight"))
        weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
        return made

    monkeypatch.setattr("sprintnet.deploy.export.export.to_int8", spoiled)
    with pytest.raises(ParityError, match=r"model-int8.onnx does not match the trained model .* accuracy drops by"):
        export(run.path, ["int8"])
    assert not (run.export / "model-int8.onnx").exists()


def test_int8_sees_all_classes_of_a_sorted_folder() -> None:
    images = np.repeat(np.arange(1000, dtype=np.uint16).astype(np.uint8)[:, None], 3, axis=1).reshape(1000, 1, 1, 3)
    whole = ImageDataset(images, np.zeros(1000, np.int64), ("one",))
    spread = _calibration_images(whole)
    assert len(spread) == 500
    np.testing.assert_array_equal(spread[[0, -1]], images[[0, -1]])
    assert len(_calibration_images(whole.take(np.arange(7)))) == 7


@pytest.mark.parametrize(
    ("row", "is_exact", "message"),
    [
        ({"agreement": 0.9998, "largest_difference": 0.0, "accuracy": 0.9}, True, "equal predictions for 99.980% of 10,000"),
        ({"agreement": 1.0, "largest_difference": 0.002, "accuracy": 0.9}, True, "a probability differs by 0.002"),
        ({"agreement": 1.0, "largest_difference": float("nan"), "accuracy": 0.9}, True, "a probability differs by nan"),
        (
            {"agreement": 1.0, "largest_difference": 0.0, "accuracy": 0.9, "novelty_difference": 0.01},
            True,
            "novelty differs by",
        ),
        (
            {"agreement": 0.9, "largest_difference": 0.5, "accuracy": 0.897},
            False,
            "accuracy drops by 0.30 points to 89.70%, more than 0.2",
        ),
        ({"agreement": 0.9, "largest_difference": 0.5, "accuracy": 0.88, "images": 100}, False, "to 88.00%, more than 1.0"),
    ],
)
def test_the_gate(row: dict[str, float], is_exact: bool, message: str) -> None:
    whole = {"images": 10_000, "network_accuracy": 0.9, **row}
    with pytest.raises(ParityError, match=message):
        check_parity("model.onnx", whole, is_exact)
    sound = {"agreement": 0.9999, "largest_difference": 1e-3, "accuracy": 0.8985, "novelty_difference": 1e-3}
    check_parity("model.onnx", {**whole, **sound}, is_exact)


def test_a_reduced_file_may_lose_one_image_of_few() -> None:
    row = {"images": 100, "agreement": 0.99, "largest_difference": 0.1, "network_accuracy": 0.55, "accuracy": 0.54}
    check_parity("model-int8.onnx", row, is_exact=False)


def test_changed_data_are_refused(exported: dict[str, RunFolder], tmp_path: Path) -> None:
    run = copied(exported["davidnet"], tmp_path)
    moved = shutil.copytree(SAMPLE, tmp_path / "moved")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(min((moved / "train").rglob("*.png")))
    run.config.write_text(run.config.read_text().replace(str(SAMPLE), str(moved)))
    (run.path / "checksums.txt").unlink()  # the change is meant
    with pytest.raises(SettingsError, match="these are not the splits that"):
        export(run.path)
    assert (run.export / "model.onnx").exists()


def test_the_command_prints_the_table(
    exported: dict[str, RunFolder], sprintnet: Command, tmp_path: Path, val: ImageDataset
) -> None:
    run = copied(exported["davidnet"], tmp_path)
    done = sprintnet("export", str(run.path), "--quantize", "fp16", "--outputs", "probabilities", "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith(f"starting: export of {run.path}\n")
    assert "model-fp16.onnx" in done.stdout and "PyTorch fp32" in done.stdout
    predictor = Predictor(run.export / "model-fp16.onnx")
    assert (predictor.outputs, predictor.metadata["license"]) == (("probabilities",), "mit")
    assert predictor(val.images[:2]).activation_maps is None
    for outputs in ("logits,images", "probabilities,images", "probabilities,probabilities"):
        refused = sprintnet("export", str(run.path), "--outputs", outputs)
        assert refused.returncode == 2
        assert (
            f"--outputs {outputs}: must include probabilities, and may include logits, activation_maps, embeddings, "
            "novelty, each once" in refused.stderr
        )
    assert sprintnet("export", "nowhere").returncode == 2
