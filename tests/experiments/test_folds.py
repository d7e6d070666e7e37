"""Cross-validation: folds that are parts of the data, figures over all of them, a test that knows what they share."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from conftest import SAMPLE, TINY, Command
from sprintnet import datasets, studies
from sprintnet.data.cross_validation import assign_folds, hold_out_fold
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits
from sprintnet.data.settings import DataSettings
from sprintnet.errors import DataError, SettingsError
from sprintnet.evaluation.metrics import top_k_accuracy
from sprintnet.experiments.compare import compare, summarise
from sprintnet.runs.folder import RunFolder, read_arrays, read_json

WORDS = ["study", "davidnet", *TINY, "--folds", "3"]


def test_the_corrected_test_is_nadeaus_and_bengios() -> None:
    # ten folds: each evaluates a ninth of what it trains on; t = mean / sqrt((1/10 + 1/9) var), 9 degrees of freedom
    a = [0.70, 0.72, 0.69, 0.73, 0.71, 0.70, 0.74, 0.72, 0.71, 0.70]
    b = [0.72, 0.73, 0.72, 0.74, 0.73, 0.71, 0.75, 0.75, 0.72, 0.73]
    differences = np.subtract(b, a)
    t = differences.mean() / math.sqrt((1 / 10 + 1 / 9) * differences.var(ddof=1))
    found = compare(a, b, is_paired=True, overlap=1 / 9)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 9))
    assert found.p > stats.ttest_rel(b, a).pvalue
    margin = stats.t.ppf(0.975, 9) * differences.mean() / t
    assert (found.low, found.high) == pytest.approx((differences.mean() - margin, differences.mean() + margin))
    assert found.runs_needed is None
    wide, narrow = summarise(a, overlap=1 / 9), summarise(a)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(math.sqrt((1 / 10 + 1 / 9) * 10))


def test_folds_that_share_images_differ_too_often_for_a_plain_test() -> None:
    # fold means that share most of their variance, as in cross-validation; no difference is there
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 1, (2000, 1)) * math.sqrt(1 / 9)
    differences = shared + generator.normal(0, 1, (2000, 10))
    errors = {overlap: sum(compare([0.0] * 10, row.tolist(), is_paired=True, overlap=overlap).p < 0.05 for row in differences)
              for overlap in (0.0, 1 / 9)}  # fmt: skip
    assert errors[0.0] / 2000 > 0.1
    assert 0.03 < errors[1 / 9] / 2000 < 0.07


def test_every_image_is_in_one_fold_and_the_test_set_in_none() -> None:
    settings = DataSettings(str(SAMPLE))
    whole = load_splits(settings, lambda line: None, test=True)
    folds = [load_splits(DataSettings(str(SAMPLE), fold=f"{number}/4"), lambda line: None, test=True) for number in range(1, 5)]
    files = [list(fold["val"].files or ()) for fold in folds]
    pool = [*(whole["train"].files or ()), *(whole["val"].files or ())]
    assert sorted(file for held_out in files for file in held_out) == sorted(pool)
    for fold, held_out in zip(folds, files, strict=True):
        assert set(fold) == {"train", "val"}
        assert sorted([*(fold["train"].files or ()), *held_out]) == sorted(pool)
        counts = np.bincount(fold["val"].labels)
        assert counts.max() - counts.min() <= 1  # by class


def test_groups_are_not_divided() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 8, 8, 3), np.uint8)
    groups = [f"person {number // 3}" for number in range(60)]
    dataset = ImageDataset(images, np.arange(60) % 2, ("a", "b"), groups=groups)
    parts = hold_out_fold(dataset, 2, 4)
    assert not set(parts["train"].groups or ()) & set(parts["val"].groups or ())
    assert len(parts["train"]) + len(parts["val"]) == 60
    with pytest.raises(SettingsError, match=r"folds=61: must be from 2 to the number of images, 60"):
        assign_folds(dataset, 61)
    lone = ImageDataset(images[:5], np.array([0, 0, 1, 1, 2]), ("a", "b", "c"))
    with pytest.raises(DataError, match="only one image of c"):
        assign_folds(lone, 2)


def test_a_cross_validation_by_the_command(sprintnet: Command, tmp_path: Path) -> None:
    done = sprintnet(*WORDS, "--name", "a")
    assert done.returncode == 0, done.stderr
    assert "starting: 3 folds of davidnet" in done.stdout
    study = tmp_path / "runs" / "study" / "a"
    runs = [RunFolder(study / f"fold-{number}") for number in (1, 2, 3)]
    logits, labels = (
        np.concatenate([read_arrays(run.predictions)[f"val_{name}"] for run in runs]) for name in ("logits", "labels")
    )
    assert f"out of fold, 200 images, each judged once: accuracy {top_k_accuracy(logits, labels, 1):.2%}" in done.stdout
    assert "Nadeau and Bengio 2003" in done.stdout
    assert len({read_json(run.data)["folds_sha256"] for run in runs}) == 1
    assert "test" not in read_json(runs[0].metrics)
    together = sprintnet(*WORDS, "--name", "together", "--jobs", "2")
    assert together.returncode == 0, together.stderr
    for run in runs:
        assert run.weights.read_bytes() == (study.with_name("together") / run.path.name / "weights.safetensors").read_bytes()
    alone = sprintnet("train", "davidnet", *TINY, "data.fold=2/3", "--name", "alone", "--no-report")
    assert alone.returncode == 0, alone.stderr
    assert (tmp_path / "runs/train/alone/weights.safetensors").read_bytes() == runs[1].weights.read_bytes()
    slow = sprintnet(*WORDS, "--name", "slow", "optim.max_lr=0.001")
    assert slow.returncode == 0, slow.stderr
    compared = sprintnet("compare", "a", "slow")
    assert compared.returncode == 0, compared.stderr
    assert "p: corrected resampled t-test (Nadeau and Bengio 2003) of the folds, which share training images" in compared.stdout
    verified = sprintnet("verify", str(runs[0].path))
    assert verified.returncode == 0, verified.stderr


def test_studies_of_other_folds_are_not_compared(sprintnet: Command) -> None:
    for words in (["--folds", "3", "--name", "folds"], ["--seeds", "2", "--name", "seeds"]):
        assert sprintnet("study", "davidnet", *TINY, *words, "epochs=1").returncode == 0
    compared = sprintnet("compare", "folds", "seeds")
    assert compared.returncode == 2
    assert "have different images or folds; compare the same images, --folds and seed" in compared.stderr


def test_images_in_memory_have_folds_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8), np.arange(60) % 3
    data = datasets.from_arrays(images, labels)
    settings = {"model__width": 4, "epochs": 1, "batch_size": 16, "augment__cutout": 0, "threads": 1}
    result = studies.study("davidnet", data, folds=3, **settings)
    assert sum(metrics["val"]["images"] for metrics in result.details) == 60 - len(data.test or ())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "3", "--seeds", "4"], "--folds 3: each fold is trained once, with the recipe's seed; leave out seeds"),
        (["--folds", "3", "data.fold=1/5"], "--folds 3: data.fold=1/5 is one of them; leave it out"),
        (["data.fold=6/5"], "data.fold=6/5: must be K/N with K from 1 to N, such as 1/5"),
        (["--folds", "1"], "--folds 1: must be a whole number from 2 to 1,000,000"),
    ],
)
def test_mistakes(sprintnet: Command, words: list[str], message: str) -> None:
    failed = sprintnet("study", "davidnet", *TINY, *words)
    assert failed.returncode == 2
    assert message in failed.stderr
