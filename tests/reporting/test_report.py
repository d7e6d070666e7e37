"""The report in a real browser: nothing loads from elsewhere, table and gallery work, hostile names are inert."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from conftest import SAMPLE, TINY, Command
from sprintnet.cli.args import NO_FILES
from sprintnet.cli.main import main
from sprintnet.config import load_config
from sprintnet.errors import SettingsError
from sprintnet.evaluation.explain import explain, explain_wrong
from sprintnet.evaluation.trained_model import load_run
from sprintnet.reporting.figures.run_figures import figure
from sprintnet.reporting.html.report import write_report
from sprintnet.runs.folder import RunFolder, open_run, read_arrays, read_json, read_rows
from sprintnet.runs.io import write_arrays, write_json, write_rows
from sprintnet.training import train as pipeline

HOSTILE = "<img src=x onerror=document.title='taken'>"
LINES = "two\nlines $\\frac{$ \u2028."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run over the sample, one of whose classes has a name with markup."""
    folder = tmp_path_factory.mktemp("report")
    data = folder / "data"
    shutil.copytree(SAMPLE, data)
    for split in ("train", "test"):
        part = os.fsencode(data / split) + b"/"
        for known, name in ((b"cat", os.fsencode(HOSTILE)), (b"deer", os.fsencode(LINES)), (b"frog", b"byte \xff \x1b")):
            Path(os.fsdecode(part + known)).rename(os.fsdecode(part + name))
    run = RunFolder(folder / "run")
    pipeline.train(load_config("davidnet", [*TINY, f"data.name={data}", "tta=0.9"]), run)
    trained, _ = load_run(run.path)
    explain_wrong(run, trained, 4)
    write_report(run)
    return run


@pytest.fixture
def page(run: RunFolder, browser: Browser) -> Iterator[Page]:
    """The report in Chromium; anything loaded from elsewhere and anything on the console fails the test."""
    said: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
    page.goto(run.report.as_uri())
    yield page
    page.close()
    assert said == []


def test_the_headline_is_what_the_metrics_say(run: RunFolder, page: Page) -> None:
    test = read_json(run.metrics)["val"]
    tiles = page.locator(".tiles dd").all_inner_texts()
    assert tiles[0].startswith(f"{test['accuracy']:.2%}")
    assert tiles[1].startswith(f"{test['tta']['accuracy']:.2%}")
    rows = page.locator("#training tbody tr")
    assert rows.count() == len(read_rows(run.results)) == 2
    assert page.locator("#labels, [href='#labels']").count() == 0  # no label errors were sought


def test_a_cell_shows_its_images(run: RunFolder, page: Page) -> None:
    cell = page.locator(".confusion button").first
    count = int(cell.inner_text())
    wrong = int(page.locator("#errors output").inner_text().split()[2])
    assert wrong == sum(row["true"] != row["predicted"] for row in read_rows(run.predictions_csv) if row["split"] == "val")
    assert f"show {count} images" in str(cell.get_attribute("aria-label"))
    cell.focus()
    page.keyboard.press("Enter")
    assert page.locator("#errors .gallery figure:visible").count() == count < wrong
    sizes = page.eval_on_selector_all("#errors .gallery figure:not([hidden]) > img", "all => all.map(one => one.naturalWidth)")
    assert sizes == [32] * count
    page.locator("#errors .all").focus()
    page.keyboard.press("Enter")
    assert page.locator("#errors .gallery figure:visible").count() == min(48, wrong)
    assert page.evaluate("document.activeElement.className") == "gallery"


def test_the_gallery_begins_with_the_most_confident(page: Page) -> None:
    sure = page.eval_on_selector_all("#errors .gallery figure", "all => all.map(one => +one.dataset.confidence)")
    assert sure == sorted(sure, reverse=True)


def test_more_images_are_shown_on_demand_and_sorting_keeps_them_all(page: Page) -> None:
    wrong = page.locator("#errors .gallery figure").count()
    assert wrong > 48
    page.locator("#errors .more").click()
    assert page.locator("#errors .gallery figure:visible").count() == wrong
    page.locator("#errors select").select_option("index")
    places = page.eval_on_selector_all("#errors .gallery figure", "all => all.map(one => +one.dataset.index)")
    assert places == sorted(places)
    page.locator("#errors select").select_option("loss")
    losses = page.eval_on_selector_all("#errors .gallery figure", "all => all.map(one => +one.dataset.loss)")
    assert losses == sorted(losses, reverse=True)


def test_class_names_with_markup_newlines_and_no_text_are_inert(run: RunFolder, page: Page) -> None:
    names = list(read_json(run.metrics)["val"]["classes"])
    assert len(names) == 10
    shown = page.locator("#classes tbody th").all_text_contents()
    assert shown == names * 2  # scores, and areas under the curves
    assert {HOSTILE, LINES, "byte \\xff \x1b"} < set(names)
    assert page.title() != "taken"
    assert page.locator("img[src=x]").count() == 0


def test_a_script_that_slipped_in_would_not_run(run: RunFolder, browser: Browser, tmp_path: Path) -> None:
    text = run.report.read_text("utf-8").replace("<main>", "<main><img src=data:, onerror=\"document.title='taken'\">", 1)
    (tmp_path / "page.html").write_text(text, "utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_timeout(300)
    assert page.title() != "taken"
    assert page.locator("#errors output").inner_text()  # the page's own script ran
    page.close()


def test_the_page_stays_small_with_many_large_images(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("checksums.txt"))
    artifacts = read_arrays(copy.artifacts)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 160, 160, 3), np.uint8)
    rows = [row for row in read_rows(copy.predictions_csv) if row["split"] == "val"]
    wrong = next(row for row in rows if row["true"] != row["predicted"])
    write_rows(copy.predictions_csv, [{**wrong, "index": index} for index in range(1000)])
    nearest = {"nearest_images": noise[::-1], "nearest_labels": np.arange(1000) % 10}
    write_arrays(copy.artifacts, **{**artifacts, "error_index": np.arange(1000), "error_images": noise, **nearest})
    trained, _ = load_run(copy.path)
    explain(trained, noise[:64, :32, :32]).save(copy.explanations)
    write_report(copy)
    assert copy.report.stat().st_size < 5_000_000
    page = copy.report.read_text("utf-8")
    assert " most confident of " in page
    # a cell counts the images on the page, not those left out
    shown = page.count('<figcaption><span class="file">')
    assert f"show {shown} images" in page


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")])
def test_nothing_overflows_and_every_figure_is_drawn(page: Page, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.eval_on_selector_all(".plot img", "all => all.map(one => [one.naturalWidth, one.alt])")
    assert len(shown) >= 10
    assert all(size > 0 and alt for size, alt in shown)
    if width == 390:  # figures of curves fit the screen; those of images scroll
        shown = page.eval_on_selector_all(
            '.plot img[alt^="Loss and"], .plot img[alt="Accuracy by confidence"]', "all => all.map(one => one.width)"
        )
        assert shown and max(shown) <= 390
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{key}") for key in ("color", "backgroundColor"))
    assert (ink, paper) == (
        ("rgb(230, 230, 230)", "rgb(22, 24, 29)") if scheme == "dark" else ("rgb(27, 31, 36)", "rgb(255, 255, 255)")
    )


def test_drawing_loads_no_torch(run: RunFolder) -> None:
    run.report.unlink()
    script = (
        f"import sys; from sprintnet.cli.main import main\nprint(main(['report', {str(run.path)!r}]), 'torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "0 False"
    assert run.report.is_file()


def test_several_runs_stand_side_by_side(run: RunFolder, sprintnet: Command, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run.path, other, ignore=shutil.ignore_patterns("checksums.txt"))
    (other / "resolved.toml").write_text(run.resolved.read_text().replace("epochs = 2", "epochs = 3"))  # as it was trained
    done = sprintnet("report", str(run.path), str(other), "--output", "both.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "both.html").read_text()
    assert str(other) in text
    assert ">epochs<" in text
    assert ">seed<" not in text
    assert text.count("<td>100 validation images</td>") == 2


@pytest.mark.parametrize("name", ["metrics.json", "artifacts.npz", "predictions.csv", "network.json", "results.csv"])
@pytest.mark.parametrize("damage", [None, b"", b"\x00broken", b"{}", b"a,b\n1,2\n"])
def test_an_unreadable_file_is_one_message_with_its_remedy(
    run: RunFolder, tmp_path: Path, name: str, damage: bytes | None
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("checksums.txt"))  # which would find all
    if damage is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(damage)
    with pytest.raises(SettingsError, match=r"(missing|damaged|inconsistent files).*(repeat the run|--resume)") as caught:
        write_report(open_run(copy))
    assert name in str(caught.value) or "inconsistent files" in str(caught.value)


@pytest.mark.parametrize("verb", ["report", "compare", "explain"])
@pytest.mark.parametrize("content", ["{}", '{"test": {}}', "[]", "a,b\n1,2\n"])
@pytest.mark.parametrize("name", ["metrics.json", "results.csv", "lr_finder.json"])
def test_a_readable_file_of_something_else_is_one_message(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, verb: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("checksums.txt"))  # which would find all
    (copy / name).write_text(content)
    others = [str(run.path)] if verb == "compare" else []
    code = main([verb.replace("compare", "report"), str(copy), *others, *(["--output", str(tmp_path / "x")] if others else [])])
    is_needed = {"report": True, "compare": name != "lr_finder.json", "explain": False}[verb]
    assert code == (2 if is_needed else 0), capsys.readouterr().err
    if is_needed:
        assert "copy" in capsys.readouterr().err


def test_a_table_of_layers_without_skips_is_one_message(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("checksums.txt"))
    network = read_json(copy.network)
    del network["skips"]
    write_json(copy.network, network)
    with pytest.raises(SettingsError, match=r"inconsistent files.*skips"):
        write_report(copy)


def test_the_page_is_written_to_output(run: RunFolder, sprintnet: Command, tmp_path: Path) -> None:
    before = run.report.read_bytes()
    done = sprintnet("report", str(run.path), "--output", "page.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"starting: report of {run.path}\nreport: page.html\n"
    assert (tmp_path / "page.html").stat().st_size > 100_000
    assert run.report.read_bytes() == before


def test_damaged_maps_are_remade_by_explain_not_by_training(run: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    (copy / "explanations.npz").write_bytes(b"broken")
    with pytest.raises(SettingsError, match="sprintnet explain"):
        write_report(open_run(copy))


def test_a_figure_without_its_files_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"figure results: not available for .*; available: none"):
        figure(RunFolder(tmp_path), "results")


def test_image_files_are_explained_and_others_refused(run: RunFolder, sprintnet: Command, tmp_path: Path) -> None:
    shutil.copy(next((SAMPLE / "test" / "dog").iterdir()), tmp_path / "dog.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "small.png")
    (tmp_path / "no.png").write_bytes(b"text")
    before = run.explanations.read_bytes()
    done = sprintnet("explain", str(run.path), "--target-class", "dog", "dog.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"starting: class activation maps of {run.path}\nfile ")
    assert re.search(r"^dog\.png +\S.* +\d+\.\d\d% +dog$", done.stdout, re.MULTILINE)
    assert (run.plots / "grad_cam_files.png").is_file()
    facts = json.loads(str(read_arrays(run.file_explanations)["facts"]))
    assert [row["target"] for row in facts["predictions"]] == ["dog"]
    assert run.explanations.read_bytes() == before
    assert sprintnet("explain", str(run.path), "small.png").returncode == 0  # resized
    folder = tmp_path / "dogs"
    shutil.copytree(SAMPLE / "test" / "dog", folder)
    assert sprintnet("explain", str(run.path), "dogs").returncode == 0
    explained = [row["file"] for row in json.loads(str(read_arrays(run.file_explanations)["facts"]))["predictions"]]
    assert explained == sorted(str(Path("dogs", file.name)) for file in folder.iterdir())
    for index in range(65):
        shutil.copy(tmp_path / "dog.png", tmp_path / "dogs" / f"more{index}.png")
    done = sprintnet("explain", str(run.path), "dogs")
    assert "75 files: the first 64 are explained, which fit into one figure\n" in done.stdout
    assert len(json.loads(str(read_arrays(run.file_explanations)["facts"]))["predictions"]) == 64
    (tmp_path / "empty").mkdir()
    done = sprintnet("explain", str(run.path), "empty")
    assert (done.returncode, done.stderr) == (2, f"sprintnet: {NO_FILES}\n")
    for name, message in (("no.png", "no.png"), ("absent.png", "absent.png")):
        done = sprintnet("explain", str(run.path), name)
        assert done.returncode != 0
        assert re.search(message, done.stderr), done.stderr
        assert "Traceback" not in done.stderr
    for arguments in (
        ["dog.png", "--target-class", "true"],
        ["dog.png", "--wrong", "3"],
        ["--wrong", "0"],
        ["--layer", "linear"],
    ):
        done = sprintnet("explain", str(run.path), *arguments)
        assert done.returncode == 2, done.stderr


def test_maps_of_a_named_class(run: RunFolder, sprintnet: Command, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    done = sprintnet("explain", str(copy.path), "--wrong", "10", "--target-class", "dog", "--layer", "block1")
    assert done.returncode == 0, done.stderr
    kept = read_arrays(copy.explanations)
    assert kept["map block1"].shape == (10, 32, 32)
    assert 0 <= kept["map block1"].min() <= kept["map block1"].max() <= 1
    assert {row["target"] for row in json.loads(str(kept["facts"]))["predictions"]} == {"dog"}
    write_report(copy)
    assert "for the dog class" in copy.report.read_text("utf-8")
    wrong = sprintnet("explain", str(copy.path), "--target-class", "unicorn")
    assert "unicorn" in wrong.stderr


def test_val_prints_the_metrics_and_writes_all_rows(run: RunFolder, sprintnet: Command, tmp_path: Path) -> None:
    done = sprintnet("val", str(run.path), "--output", "rows.csv")
    assert done.returncode == 0, done.stderr
    test = read_json(run.metrics)["val"]
    low, high = (100 * end for end in test["accuracy_interval"])
    for text in (
        f"accuracy        {test['accuracy']:.2%} (95% CI {low:.2f} to {high:.2f})",
        f"{test['tta']['accuracy']:.2%}",
        "calibrated",
        "most confused",
    ):
        assert text in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.count("confusion matrix") == 1
    assert re.search(r"^two lines \$\\frac\{\$ \. +10 ", done.stdout, re.MULTILINE)
    rows = read_rows(tmp_path / "rows.csv")
    assert all(Path(row["file"]).is_file() for row in rows if "byte" not in row["true"])
    kept = [row for row in read_rows(run.predictions_csv) if row["split"] == "val"]
    assert [row["predicted"] for row in rows] == [row["predicted"] for row in kept]


@pytest.mark.parametrize("split", ["val", "train"])
def test_images_that_a_run_was_trained_on_never_count_as_held_out(run: RunFolder, sprintnet: Command, split: str) -> None:
    done = sprintnet("val", str(run.path), "--split", split, f"data.name={SAMPLE}")
    assert done.returncode != 0
    assert "are none of the model's" in done.stderr
    drawn = sprintnet("val", str(run.path), "--split", split, "data.val=0.3")  # what the run's splits.csv says stays
    assert drawn.returncode == 0, drawn.stderr
    plain = sprintnet("val", str(run.path), "--split", split)
    assert re.sub(r"[\d.]+ s\b", "", drawn.stdout) == re.sub(r"[\d.]+ s\b", "", plain.stdout)  # seconds of TTA


def test_no_report_leaves_the_page_out(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    done = sprintnet("train", "davidnet", *tiny, "--no-report")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "runs" / "train" / "davidnet" / "report.html").exists()
