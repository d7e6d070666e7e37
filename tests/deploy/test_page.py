"""The page in a real browser, with a server and from a static folder: equal predictions, no requests to other hosts."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from conftest import SAMPLE
from deploy.conftest import Server, Start
from deploy.visit import Visit, visit
from sprintnet.deploy.export.graph import to_bytes
from sprintnet.deploy.predictor import Predictor

FILES = sorted((SAMPLE / "test").glob("*/*.png"))[::20]
HAND_OVER = """([kind, property, bytes]) => {
    const files = new DataTransfer();
    files.items.add(new File([new Uint8Array(bytes)], kind));
    const event = new Event(kind, {bubbles: true, cancelable: true});
    event[property] = files;
    document.body.dispatchEvent(event);
}"""
HOSTILE = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(params=["server", "static"])
def shown(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Visit]:
    """The page, once from the server and once from the folder; anything on the console and any request elsewhere fails."""
    found = visit(browser, request.getfixturevalue(request.param))
    yield found
    found.page.close()
    assert found.said == []


def drawn(page: Page) -> bytes:
    """A screenshot of the first card's image (PNG)."""
    return page.locator("article .image").first.screenshot()


def test_chosen_images_are_predicted_as_by_the_predictor(shown: Visit, model: Path) -> None:
    page = shown.page
    page.locator("#files").set_input_files(FILES)
    expect(page.locator("article .classes")).to_have_count(len(FILES))
    expect(page.locator("article.waiting")).to_have_count(0)
    expected = Predictor(model)(FILES).top(5)
    for card, top in zip(page.locator("article").all(), expected, strict=True):
        assert card.locator(".name").all_inner_texts() == [label for label, _ in top]
        assert card.locator(".share").all_inner_texts() == [f"{100 * probability:.1f} %" for _, probability in top]
    for card, file in zip(page.locator("article .file").all_inner_texts(), FILES, strict=True):
        assert card.startswith(f"{file.name} · 32 x 32 pixels · predicted in ")
        assert card.endswith(" ms")


def test_a_class_shows_its_map_as_strong_as_the_slider_says(shown: Visit) -> None:
    page = shown.page
    page.locator("#samples button").first.click()
    expect(page.locator("article .classes button")).to_have_count(5)
    first = drawn(page)
    page.locator("article .classes button").nth(1).click()
    expect(page.locator("article .classes button[aria-pressed=true]")).to_have_count(1)
    second = drawn(page)
    assert first != second
    name = page.locator("article .name").nth(1).inner_text()
    assert page.locator("figcaption").inner_text().endswith(f"for {name}")
    page.locator("#opacity").fill("0")
    plain = drawn(page)
    page.locator("#opacity").fill("100")
    assert len({first, second, plain, drawn(page)}) == 4
    page.locator("#opacity").fill("0")
    page.locator("article .classes button").first.click()
    assert drawn(page) == plain


def test_the_keyboard_is_enough(shown: Visit) -> None:
    page = shown.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    buttons = page.locator("article .classes button")
    expect(buttons).to_have_count(5)
    expect(page.locator("#status")).to_contain_text("Sample 1: ")
    while page.evaluate("document.activeElement.id") != "opacity":
        page.keyboard.press("Tab")
    before = drawn(page)
    page.keyboard.press("ArrowRight")
    assert page.locator("#opacity").input_value() == "51"
    assert drawn(page) != before
    for place in ("coverage", "clear"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == place
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator("#clear").press("Enter")
    expect(page.locator("article")).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "files"


def test_unreadable_files_are_reported_and_the_rest_predicted(shown: Visit, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / HOSTILE.replace("/", "")).write_text("no image")
    shown.page.locator("#files").set_input_files([*tmp_path.iterdir(), FILES[0]])
    expect(shown.page.locator("article.failed")).to_have_count(2)
    expect(shown.page.locator("article:not(.failed):not(.waiting)")).to_have_count(1)
    messages = shown.page.locator("article.failed .file").all_inner_texts()
    assert any(message.startswith("text.png: cannot be read as an image (") for message in messages)
    assert any(HOSTILE in message for message in messages)
    assert shown.page.title() == "SprintNet"
    shown.said[:] = [text for text in shown.said if "422" not in text]  # the browser's own remark about each refusal


def test_images_can_be_dropped_and_pasted(shown: Visit) -> None:
    for kind, property in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        shown.page.evaluate(HAND_OVER, [kind, property, list(FILES[0].read_bytes())])
        expect(shown.page.locator("article .file").first).to_contain_text(f"{kind} · 32 x 32 pixels")


def test_a_turned_photograph_is_shown_and_predicted_upright(shown: Visit, tmp_path: Path, model: Path) -> None:
    with Image.open(FILES[0]) as image:
        upright = image.resize((300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    shown.page.locator("#files").set_input_files(tmp_path / "turned.jpg")
    expect(shown.page.locator("article .file")).to_contain_text("turned.jpg · 300 x 200 pixels")
    expected = Predictor(model)([tmp_path / "turned.jpg"])
    assert shown.page.locator("article .name").first.inner_text() == expected.labels[0]
    share = float(shown.page.locator("article .share").first.inner_text().rstrip(" %"))
    assert share == pytest.approx(100 * expected.confidences[0], abs=0.3)  # two JPEG decoders


def test_the_report_is_a_link_away_on_the_machine_that_trained(browser: Browser, server: str, static: str) -> None:
    found = visit(browser, server)
    with found.page.expect_navigation():
        found.page.locator("#report").click()
    assert "SprintNet report" in found.page.content()
    found.page.close()
    published = visit(browser, static)  # where it would name that machine's folders
    expect(published.page.locator("#report")).to_be_hidden()
    published.page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")])
def test_nothing_sticks_out(server: str, browser: Browser, width: int, scheme: str) -> None:
    found = visit(browser, server, viewport={"width": width, "height": 800}, color_scheme=scheme)
    found.page.locator("#samples button").first.click()
    expect(found.page.locator("article .classes button")).to_have_count(5)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = (found.page.evaluate(f"getComputedStyle(document.body).{key}") for key in ("color", "backgroundColor"))
    assert (ink, paper) == (
        ("rgb(230, 230, 230)", "rgb(22, 24, 29)") if scheme == "dark" else ("rgb(27, 31, 36)", "rgb(255, 255, 255)")
    )
    found.page.close()
    assert found.said == []


def test_hostile_class_names_are_inert_and_maps_may_be_missing(
    browser: Browser, model: Path, tmp_path: Path, start: Start
) -> None:
    changed = onnx.load(model)
    preprocessing = Predictor(model).preprocessing
    names = (HOSTILE, "two\nlines", "a" * 200, *preprocessing.classes[3:])
    entry = next(entry for entry in changed.metadata_props if entry.key == "preprocessing")
    entry.value = json.dumps(replace(preprocessing, classes=names).to_metadata())
    del changed.graph.output[2]
    (tmp_path / "model.onnx").write_bytes(to_bytes(changed))
    server = start(model=tmp_path / "model.onnx")
    found = visit(browser, server.url, viewport={"width": 390, "height": 800})
    assert found.page.locator("#samples").is_hidden()
    assert found.page.locator("#report").is_hidden()
    found.page.locator("#files").set_input_files(FILES[0])
    expect(found.page.locator("article .classes button[disabled]")).to_have_count(5)
    assert found.page.locator("#overlay").is_hidden()
    assert found.page.title() == "SprintNet"
    assert found.page.locator("img[src=x]").count() == 0
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 390
    found.page.close()
    assert found.said == []


def test_a_server_that_ended_is_said(browser: Browser, start: Start) -> None:
    server: Server = start()
    found = visit(browser, server.url)
    server.process.terminate()
    server.process.wait()
    found.page.locator("#files").set_input_files(FILES[0])
    expect(found.page.locator("article.failed .file")).to_contain_text("The server does not respond; is it still running?")
    found.page.close()


def test_what_is_no_file_opens_nothing(shown: Visit) -> None:
    shown.page.evaluate(
        """() => {
            const text = new DataTransfer();
            text.setData("text/plain", "a link");
            document.body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: text}));
        }"""
    )
    expect(shown.page.locator("#predictions")).to_be_hidden()


def test_a_sample_that_is_lost_and_a_proxy_that_fails_are_said(browser: Browser, server: str) -> None:
    found = visit(browser, server)
    found.page.route("**/samples/*", lambda asked: asked.fulfill(status=404, body="gone"))
    found.page.locator("#samples button").first.click()
    expect(found.page.locator("#status")).to_contain_text("Sample 1 could not be loaded: 404")
    expect(found.page.locator("article")).to_have_count(0)
    found.page.route("**/predict*", lambda asked: asked.fulfill(status=502, body="<html>bad gateway</html>"))
    found.page.locator("#files").set_input_files(FILES[0])
    expect(found.page.locator("article.failed .file")).to_contain_text("502")
    found.page.close()


def test_the_map_that_is_seen_is_the_predictors(shown: Visit, model: Path) -> None:
    shown.page.locator("#files").set_input_files(FILES[0])
    expect(shown.page.locator("article .classes button")).to_have_count(5)
    seen = shown.page.evaluate("document.querySelector('article canvas').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(seen.partition(",")[2]))) as image:
        strength = (np.asarray(image.convert("RGBA"))[..., 3] / 255) ** 2
    predictions = Predictor(model)(FILES[:1])
    assert predictions.activation_maps is not None
    expected = predictions.activation_maps[0, predictions.classes.index(predictions.labels[0])]
    centres = [(2 * np.arange(count) + 1) * len(strength) // (2 * count) for count in expected.shape]
    assert strength[np.ix_(*centres)] == pytest.approx(expected / expected.max(), abs=0.06)
