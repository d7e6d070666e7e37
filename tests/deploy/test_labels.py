"""Multi-label predictions over HTTP and on the page, with a server and without: equal to the Predictor's."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from deploy.client import CLIENT
from deploy.conftest import Start
from deploy.visit import plain_server, visit
from sprintnet.cli.main import main
from sprintnet.deploy.predictor import Predictor
from sprintnet.runs.folder import RunFolder


@pytest.fixture
def files(labelled: RunFolder) -> list[Path]:
    """Images with none, one and two predicted labels."""
    images = sorted(labelled.path.parents[2].glob("test-*.png"))
    predictions = Predictor(labelled.export / "model.onnx")(images)
    by_count = {len(labels): file for file, labels in zip(images, predictions.label_sets, strict=True)}
    assert by_count.keys() >= {0, 1, 2}
    return [by_count[count] for count in (0, 1, 2)]


def headings(files: list[Path], predictor: Predictor) -> list[str]:
    """The page's heading for each image."""
    shown = [
        ", ".join(f"{label} {100 * probability:.1f} %" for label, probability in labels)
        for labels in predictor(files).label_sets
    ]
    return [text or "No class above 50.0 %" for text in shown]


def test_the_server_lists_labels(labelled: RunFolder, files: list[Path], start: Start) -> None:
    server = start(model=labelled.export / "model.onnx")
    form = [("image", (file.name, file.read_bytes(), "image/png")) for file in files]
    response = CLIENT.post(f"{server.url}/predict?top=4", files=form)
    assert response.status_code == 200, response.text
    predictor = Predictor(labelled.export / "model.onnx")
    for image, labels, best in zip(
        response.json()["images"], predictor(files).label_sets, predictor(files).top(4), strict=True
    ):
        assert [label["class"] for label in image["labels"]] == [name for name, _ in labels]
        assert [label["probability"] for label in image["labels"]] == pytest.approx([share for _, share in labels], abs=1e-5)
        assert [entry["class"] for entry in image["top"]] == [name for name, _ in best]
    described = CLIENT.get(f"{server.url}/metadata").json()
    assert (described["preprocessing"]["task"], described["threshold"]) == ("multi-label", 0.5)


def test_the_page_names_all_of_them(labelled: RunFolder, files: list[Path], start: Start, browser: Browser) -> None:
    found = visit(browser, start(model=labelled.export / "model.onnx").url)
    found.page.locator("#files").set_input_files(files)
    expect(found.page.locator("article.waiting")).to_have_count(0)
    assert found.page.locator("article h2").all_inner_texts() == headings(files, Predictor(labelled.export / "model.onnx"))
    assert "on 100 validation images" in found.page.locator("#facts").inner_text()
    found.page.close()
    assert found.said == []


def test_the_browser_alone_says_the_same(
    labelled: RunFolder, files: list[Path], browser: Browser, runtime: dict[str, bytes], tmp_path: Path
) -> None:
    shutil.copytree(labelled.path, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--web", str(tmp_path / "page")]) == 0
    with plain_server(tmp_path / "page") as address:
        found = visit(browser, address)
        found.page.locator("#files").set_input_files(files)
        expect(found.page.locator("article.waiting")).to_have_count(0)
        assert found.page.locator("article h2").all_inner_texts() == headings(files, Predictor(labelled.export / "model.onnx"))
        found.page.close()
        assert found.said == []
