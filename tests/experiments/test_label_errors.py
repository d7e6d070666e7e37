"""Label errors: labels that are wrong by construction are found, from networks that have not seen them, killed or not."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cleanlab.count import num_label_issues
from cleanlab.rank import get_label_quality_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser

from conftest import Command
from sprintnet.cli import experiments
from sprintnet.cli.main import main
from sprintnet.config import load_config
from sprintnet.data.dataset import ImageDataset, concatenate, digest
from sprintnet.data.load import load_splits
from sprintnet.data.splits import connected_groups, stratified_k_fold
from sprintnet.errors import DataError, SettingsError
from sprintnet.evaluation.metrics import log_probabilities
from sprintnet.evaluation.trained_model import load_run
from sprintnet.experiments.label_errors import FOLDS, label_errors, rank_errors
from sprintnet.reporting.html.report import write_report
from sprintnet.runs.folder import RunFolder, open_run, read_arrays, read_json, read_rows
from sprintnet.training import train as pipeline

HOSTILE = "<img src=x onerror=document.title='taken'>"
COLOURS = {HOSTILE: (200, 60, 60), "green": (60, 200, 60), "sea": (60, 60, 200)}
LEARNED = ["model.width=4", "epochs=12", "batch_size=16", "threads=1", "precision=fp32", "optim.max_lr=0.1", "augment.cutout=0"]
LEARNED += ["label_smoothing=0", "data.val=0.2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy images of three colours, one of each (`moved.png`) among those of the next."""
    folder = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(generator.normal(colour, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    for name, other in pairwise([*COLOURS, *COLOURS][:4]):
        (folder / "train" / name / "0.png").rename(folder / "train" / other / "moved.png")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run over them, and what `label-errors` found."""
    run = RunFolder(tmp_path_factory.mktemp("label-errors") / "run")
    pipeline.train(load_config("davidnet", [*LEARNED, f"data.name={data}"]), run)
    assert main(["label-errors", str(run.path), "--folds", "3"]) == 0
    return run


def test_flipped_labels_under_sure_answers_are_found_and_no_others() -> None:
    labels = np.repeat(np.arange(3), 20)
    logits = np.where(labels[:, None] == np.arange(4), 6.0, 0.0)  # of four classes, one has no image
    assert rank_errors(logits, labels).ranked.tolist() == []
    given = labels.copy()
    given[[5, 33]] = [2, 0]
    logits[33, 0] = -1  # the less probable label comes first
    found = rank_errors(logits, given)
    assert found.ranked.tolist() == found.contradicted.tolist() == [33, 5]


@given(st.integers(2, 5), st.integers(5, 60), st.integers(0, 1000))
@settings(max_examples=50)
def test_the_doubted_are_the_first_in_order_of_the_odds_against_them(classes: int, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), generator.integers(0, classes, count)]
    logits = generator.normal(0, 2, (len(labels), classes))
    found = rank_errors(logits, labels)
    assert found.probabilities.sum(axis=1) == pytest.approx(1)
    given = found.probabilities[np.arange(len(labels)), labels]
    margin = get_label_quality_scores(labels, found.probabilities, method="normalized_margin") * 2 - 1  # p - best other p
    assert found.quality == pytest.approx(np.log(given / (given - margin)))
    lowest = np.argsort(found.quality)[: num_label_issues(labels, found.probabilities)]
    assert found.ranked.tolist() == [image for image in lowest if logits[image].argmax() != labels[image]]
    contradicted = np.flatnonzero(logits.argmax(axis=1) != labels)
    assert found.contradicted.tolist() == sorted(contradicted, key=lambda image: found.quality[image])


def test_the_labels_that_are_wrong_are_found_and_no_others(run: RunFolder, data: Path) -> None:
    rows = read_rows(run.label_errors.with_suffix(".csv"))
    train = data / "train"
    assert {(row["file"], row["given"], row["suggested"]) for row in rows} == {
        (str(train / "green" / "moved.png"), "green", HOSTILE),
        (str(train / "sea" / "moved.png"), "sea", "green"),
        (str(train / HOSTILE / "moved.png"), HOSTILE, "sea"),
    }
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    quality = [float(row["quality"]) for row in rows]
    assert quality == sorted(quality)
    for row, value in zip(rows, quality, strict=True):
        assert np.log(float(row["given_probability"]) / float(row["suggested_probability"])) == pytest.approx(value, abs=0.01)
    splits = load_splits(load_config(run.config).data, run=run)
    kept = read_arrays(run.label_errors)
    for row, image in zip(rows, kept["images"], strict=True):
        part, index = splits[row["split"]], int(row["index"])
        assert part.files is not None
        assert part.files[index] == row["file"]
        assert np.array_equal(part.images[index], image)
    facts = json.loads(str(kept["facts"]))
    assert (facts["images"], facts["errors"], facts["folds"]) == (60, 3, 3)


def test_each_image_is_judged_by_a_network_that_was_trained_without_it(run: RunFolder) -> None:
    splits = load_splits(load_config(run.config).data, run=run)
    images = concatenate(splits["train"], splits["val"])
    fold_of = stratified_k_fold(images.labels, 3)
    rows = read_rows(run.label_errors.with_suffix(".csv"))
    for number in range(3):
        fold = open_run(run.path / "label-errors" / f"fold-{number + 1}")
        parts = images.take(np.flatnonzero(fold_of != number)), images.take(asked := np.flatnonzero(fold_of == number))
        assert json.loads(fold.environment.read_text())["data_sha256"] == digest(*parts)
        assert main(["val", str(fold.path), "--split", "val"]) == 0  # a run like any other
        answers = np.exp(log_probabilities(load_run(fold.path)[0].predict(parts[1])[0]))
        assert images.files is not None
        for row in rows:
            if (place := images.files.index(row["file"])) in asked:
                expected = answers[asked.tolist().index(place), images.labels[place]]
                assert float(row["given_probability"]) == pytest.approx(expected, abs=1e-6)


def test_a_group_is_judged_by_networks_that_saw_none_of_it(data: Path, tmp_path: Path) -> None:
    rows = ["path,label,group", *(f"{file},{file.parent.name},{file.stem}" for file in sorted(data.glob("train/*/*.png")))]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    config = load_config("davidnet", [*LEARNED, "epochs=1", f"data.name={tmp_path / 'table.csv'}"])
    run = RunFolder(tmp_path / "run")
    splits = load_splits(config.data)
    label_errors(config, splits, run, folds=2)
    images = concatenate(splits["train"], splits["val"])
    groups = images.groups or ()
    fold_of = stratified_k_fold(images.labels, 2, connected_groups(len(images), groups, []))
    halves = [np.flatnonzero(fold_of == number) for number in range(2)]
    assert not {groups[index] for index in halves[0]} & {groups[index] for index in halves[1]}
    trained_on = read_json(run.path / "label-errors" / "fold-1" / "environment.json")["data_sha256"]
    assert trained_on == digest(images.take(halves[1]), images.take(halves[0]))


def test_a_killed_search_goes_on_and_finds_the_same(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("label*", "report.html"))
    words = [sys.executable, "-m", "sprintnet", "label-errors", str(copy.path), "--folds", "3"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    first = RunFolder(copy.path / "label-errors" / "fold-1")
    while not first.metrics.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not copy.label_errors.exists()
    written = first.weights.stat().st_mtime_ns
    resumed = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=True)
    assert "fold 3 of 3: agrees with" in resumed.stdout
    assert f"3 of 60 labels are likely wrong, most suspicious first: {copy.path / 'label_errors.csv'}" in resumed.stdout
    assert re.search(r"^the networks that judged them agree with 95\.00% of all labels$", resumed.stdout, re.MULTILINE)
    assert "caution" not in resumed.stdout
    assert first.weights.stat().st_mtime_ns == written
    found = [each.label_errors.with_suffix(".csv").read_text() for each in (run, copy)]
    assert found[0] == found[1]


def test_errors_of_weak_networks_come_with_a_caution(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "WEAK_ACCURACY", 0.96)
    assert main(["label-errors", str(run.path), "--folds", "3", "--resume"]) == 0
    shown = capsys.readouterr().out
    assert "the networks that judged them agree with 95.00% of all labels\ncaution: networks this weak err often: " in shown


def test_the_report_shows_them_sorts_them_and_runs_nothing_in_their_names(run: RunFolder, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(run.report.as_uri())
    section = page.locator("#labels")
    assert "3 labels are likely wrong" in section.inner_text()
    assert page.locator("nav a[href='#labels']").count() == 1
    assert section.locator("output").inner_text() == "3 of 3 images"
    sizes = page.eval_on_selector_all("#labels img", "all => all.map(one => one.naturalWidth)")
    assert sizes == [32, 32, 32]
    rows = read_rows(run.label_errors.with_suffix(".csv"))
    captions = section.locator("figcaption").all_inner_texts()
    assert [caption.splitlines()[0] for caption in captions] == [row["given"] for row in rows]
    assert [caption.split("→ ")[1].split(",")[0] for caption in captions] == [row["suggested"] for row in rows]
    for key, sign in (("suggested_probability", -1), ("quality", 1), ("index", 1)):
        section.locator("select").select_option(key)
        values = page.eval_on_selector_all("#labels figure", f"all => all.map(one => {sign} * one.dataset.{key})")
        assert values == sorted(values)
    assert page.title() != "taken"
    assert page.locator("img[src=x]").count() == 0
    page.close()


def test_drawing_loads_neither_torch_nor_cleanlab(run: RunFolder) -> None:
    run.report.unlink()
    script = f"import sys; from sprintnet.cli.main import main\nprint(main(['report', {str(run.path)!r}]), *sys.modules)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    code, *modules = printed.splitlines()[-1].split()
    assert code == "0"
    assert "#labels" in run.report.read_text("utf-8")
    assert {"torch", "cleanlab", "matplotlib"} & set(modules) == {"matplotlib"}


def test_a_damaged_file_is_one_message_with_its_remedy(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    copy.label_errors.write_bytes(b"broken")
    with pytest.raises(SettingsError, match=r"label_errors.npz: damaged .*; sprintnet label-errors .*/copy --resume"):
        write_report(copy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "3"], "label-errors: already holds folds; resume them"),
        (["--folds", "4", "--resume"], "--folds 4: .*fold-1 has other images; resume with the number of folds at its start"),
        (["--folds", "1", "--resume"], "--folds 1: must be"),
        (["--folds", "61", "--resume"], "--folds 61: must be from 2 to the number of images, 60"),
        (["epochs=3"], "epochs=3"),
    ],
)
def test_mistakes(run: RunFolder, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["label-errors", str(run.path), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_other_images_than_the_runs_are_not_judged(run: RunFolder, data: Path, tmp_path: Path, sprintnet: Command) -> None:
    shutil.copytree(data, tmp_path / "moved")
    Image.new("RGB", (32, 32)).save(tmp_path / "moved" / "train" / "sea" / "1.png")
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("checksums.txt"))
    (copy / "config.toml").write_text(run.config.read_text().replace(str(data), str(tmp_path / "moved")))
    done = sprintnet("label-errors", str(copy), "--folds", "3", "--resume")
    assert done.returncode == 2
    assert "these are not the splits that" in done.stderr


def test_a_duplicate_is_judged_with_its_double_and_lone_or_many_labels_not_at_all(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    pixels[30:] = pixels[:10]
    images = ImageDataset(pixels, np.arange(40) % 2, ("a", "b"))
    config = load_config("davidnet", [*LEARNED, "epochs=1"])
    label_errors(config, {"train": images}, run := RunFolder(tmp_path / "run"), 4)
    fold_of = {
        int(row["path"]): number
        for number in range(1, 5)
        for row in read_rows(RunFolder(run.path / "label-errors" / f"fold-{number}").splits)
        if row["split"] == "val"
    }
    assert sorted(fold_of) == list(range(40))
    assert all(fold_of[index] == fold_of[index + 30] for index in range(10))

    lone = ImageDataset(pixels[:5], np.array([0, 0, 1, 1, 2]), ("a", "b", "lone"))
    with pytest.raises(DataError, match="only one image of lone: no other image to judge it by"):
        label_errors(config, {"train": lone}, RunFolder(tmp_path / "lone"), 2)
    bound = ImageDataset(pixels, np.arange(40) % 2, ("a", "bound"), groups=["", "one"] * 20)
    with pytest.raises(DataError, match="all images of bound belong together"):
        label_errors(config, {"train": bound}, RunFolder(tmp_path / "bound"), 2)
    many = ImageDataset(pixels, np.ones((40, 2), np.uint8), ("a", "b"))
    with pytest.raises(DataError, match="several labels each"):
        label_errors(config, {"train": many}, RunFolder(tmp_path / "many"), 2)
    with pytest.raises(SettingsError, match="folds=30: too many for 40 images of 2 classes"):
        label_errors(config, {"train": images}, RunFolder(tmp_path / "thin"), 30)


def test_folds_in_processes_of_their_own_are_those_of_this_process(tmp_path: Path) -> None:
    settings = ["model.width=4", "epochs=1", "threads=1", "data.name=digits", "augment.cutout=0", "batch_size=64"]
    run = tmp_path / "run"
    pipeline.train(load_config("davidnet", settings), RunFolder(run, is_quiet=True))
    assert main(["label-errors", str(run), "--folds", "2", "--jobs", "2"]) == 0
    together = [(run / "label-errors" / f"fold-{number}" / "weights.safetensors").read_bytes() for number in (1, 2)]
    shutil.rmtree(run / "label-errors")
    assert main(["label-errors", str(run), "--folds", "2"]) == 0
    in_turn = [(run / "label-errors" / f"fold-{number}" / "weights.safetensors").read_bytes() for number in (1, 2)]
    assert together == in_turn


@pytest.mark.parametrize(("init_from", "is_named"), [("", False), ("imagenet", False), ("runs/train/earlier", True)])
def test_earlier_weights_that_may_know_the_labels_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], init_from: str, is_named: bool
) -> None:
    (tmp_path / FOLDS).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    images = ImageDataset(pixels, np.arange(40) % 2, ("a", "b"))
    config = load_config("smoke").changed({"init_from": init_from})
    with pytest.raises(SettingsError, match="already holds folds"):
        label_errors(config, {"train": images}, RunFolder(tmp_path), folds=2)
    assert capsys.readouterr().out.startswith("init_from=runs/train/earlier: if it has seen") == is_named
