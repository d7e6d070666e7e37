"""Ensembles of a study's runs: against the mean of the members' probabilities, as a run like any other, and refusals."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from scipy import special, stats

import sprintnet as sn
from conftest import SAMPLE, TINY, Command, call
from shapes import splits, write_table
from sprintnet.config import load_config
from sprintnet.data.load import load_splits
from sprintnet.experiments import ensemble as experiment
from sprintnet.runs.folder import RunFolder, read_arrays, read_json

SEEDS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, and the ensemble of it, exported."""
    folder = tmp_path_factory.mktemp("ensemble")
    done = call(folder, "study", "davidnet", "--seeds", str(SEEDS), "--name", "some", "tta=0.9", "precision=fp32", *TINY)
    assert done.returncode == 0, done.stderr
    with contextlib.chdir(folder):
        sn.ensemble("some").export()
    return folder


@pytest.fixture
def run(place: Path) -> RunFolder:
    return RunFolder(place / "runs" / "train" / "some-ensemble")


def members(place: Path) -> list[RunFolder]:
    return [RunFolder(place / "runs" / "study" / "some" / f"seed-{seed}") for seed in range(SEEDS)]


def test_probabilities_are_the_mean_of_the_members(place: Path, run: RunFolder) -> None:
    logits = read_arrays(run.predictions)["val_logits"]
    each = [special.softmax(read_arrays(one.predictions)["val_logits"].astype(np.float64), axis=1) for one in members(place)]
    np.testing.assert_allclose(np.exp(logits), np.mean(each, axis=0), atol=1e-5)


def test_probabilities_of_several_labels_are_the_mean_too(tmp_path: Path) -> None:
    table = str(write_table(tmp_path, splits()))
    settings = [*TINY[2:], "precision=fp32", "label_smoothing=0.1"]
    assert call(tmp_path, "study", "davidnet", "--data", table, "--seeds", "2", "--name", "two", *settings).returncode == 0
    with contextlib.chdir(tmp_path):
        sn.ensemble("two")
    run = RunFolder(tmp_path / "runs" / "train" / "two-ensemble")
    studied = [RunFolder(tmp_path / "runs" / "study" / "two" / f"seed-{seed}") for seed in range(2)]
    each = [special.expit(read_arrays(one.predictions)["val_logits"].astype(np.float64)) for one in studied]
    np.testing.assert_allclose(special.expit(read_arrays(run.predictions)["val_logits"]), np.mean(each, axis=0), atol=1e-5)


def test_the_gain_is_that_over_the_mean_of_the_members(place: Path, run: RunFolder) -> None:
    metrics = read_json(run.metrics)
    found, own = metrics["ensemble"]["accuracy"], read_arrays(run.predictions)
    theirs = [read_json(one.metrics)["val"]["accuracy"] for one in members(place)]
    assert found["members"] == pytest.approx(theirs)
    assert (found["mean"], found["sd"]) == pytest.approx((np.mean(theirs), np.std(theirs, ddof=1)))
    assert found["gain"] == pytest.approx(metrics["val"]["accuracy"] - np.mean(theirs))
    labels = own["val_labels"]
    right = [read_arrays(one.predictions)["val_logits"].argmax(1) == labels for one in members(place)]
    gains = (own["val_logits"].argmax(1) == labels) - np.mean(right, axis=0)
    interval = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert found["gain_interval"] == pytest.approx([interval.low, interval.high])
    assert metrics["ensemble"]["tta_accuracy"]["gain"] == pytest.approx(
        metrics["val"]["tta"]["accuracy"]
        - np.mean([read_json(one.metrics)["val"]["tta"]["accuracy"] for one in members(place)])
    )


def test_one_file_answers_as_the_ensemble(run: RunFolder) -> None:
    labels, logits = (read_arrays(run.predictions)[f"val_{name}"] for name in ("labels", "logits"))
    images = load_splits(load_config(run.config).data, run=run)["val"].images
    session = onnxruntime.InferenceSession(run.export / "model.onnx")
    outputs = dict(zip([one.name for one in session.get_outputs()], session.run(None, {"images": images}), strict=True))
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    assert outputs["embeddings"].shape == (len(labels), SEEDS * 32)
    assert outputs["activation_maps"].shape[:2] == (len(labels), 10)


def test_it_is_a_run_like_any_other(place: Path) -> None:
    done = call(place, "ensemble", "some", "--name", "reported")
    assert done.returncode == 0, done.stderr
    assert "of the ensemble" in done.stdout and "report: runs/train/reported/report.html" in done.stdout
    done = call(place, "verify", "reported")
    assert done.returncode == 0, done.stderr
    assert "report          same" in done.stdout
    assert "predictions     same" in done.stdout
    assert "an ensemble is not trained; verify its runs: seed-0, seed-1, seed-2" in done.stdout
    for command in (
        ["val", "some-ensemble"],
        ["explain", "some-ensemble", "--layer", "block1"],
        ["predict", "some-ensemble", str(next(SAMPLE.glob("test/*/*.png"))), "--coverage", "0.5"],
        ["report", "some-ensemble", "runs/study/some/seed-0"],
    ):
        done = call(place, *command)
        assert done.returncode == 0, done.stderr
    page = (place / "runs" / "train" / "reported" / "report.html").read_text("utf-8")
    assert "the mean of the probabilities of 3 networks" in page
    assert "sprintnet ensemble runs/study/some" in page


def test_it_is_a_model_of_the_python_api(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    model = sn.ensemble("some", name="by-python")
    assert repr(model).startswith("Model(ensemble of 3, davidnet, epochs=2: val accuracy")
    assert list(model.history) == []
    same = sn.load("runs/train/some-ensemble")
    image = next(SAMPLE.glob("test/*/*.png"))
    np.testing.assert_array_equal(model.predict_proba(image), same.predict_proba(image))


def test_images_in_memory_are_named_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = np.random.default_rng(0).integers(0, 255, (60, 16, 16, 3), np.uint8), np.arange(60) % 3
    data = sn.from_arrays(images, labels)
    study = sn.study("davidnet", data, seeds=2, model__width=4, epochs=1, batch_size=32, threads=1, precision="fp32")
    with pytest.raises(sn.SettingsError, match=r"^data=None: the runs' images were in memory; give them again"):
        sn.ensemble(study)
    assert sn.ensemble(study, data).metrics["ensemble"]["accuracy"]["mean"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "2", "seed=7"], "differs from"),  # other images
        (["--folds", "2"], "was trained on a fold, whose images are no hold-out of the others; use a study of seeds"),
    ],
)
def test_runs_that_cannot_be_one_model_are_refused(place: Path, arguments: list[str], message: str) -> None:
    name = arguments[0].removeprefix("--")
    other = ["data.val=0.4"] if name == "seeds" else []
    done = call(place, "study", "davidnet", "--name", name, *arguments, *TINY, *other)
    assert done.returncode == 0, done.stderr
    studied = place / "runs" / "study"
    if name == "seeds":
        shutil.copytree(studied / "some" / "seed-0", studied / name / "seed-0")
    done = call(place, "ensemble", name)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (place / "runs" / "train" / f"{name}-ensemble" / "config.toml").exists()


def test_one_run_is_no_ensemble(place: Path, sprintnet: Command, tmp_path: Path) -> None:
    shutil.copytree(place / "runs" / "study" / "some" / "seed-0", tmp_path / "runs" / "study" / "one" / "seed-0")
    done = sprintnet("ensemble", "one")
    assert done.returncode == 2
    assert "1 finished runs; an ensemble needs two or more" in done.stderr


def test_training_does_not_start_from_an_ensemble(place: Path) -> None:
    done = call(place, "train", "davidnet", "init_from=runs/train/some-ensemble", "--name", "again", *TINY)
    assert done.returncode == 2
    assert "is an ensemble of 3 networks; name a run of its study" in done.stderr


def test_a_damaged_list_of_members_is_one_message(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "runs" / "train" / "some-ensemble", tmp_path / "copy")
    (tmp_path / "copy" / "members.json").write_text("{")
    done = call(tmp_path, "val", "copy")
    assert done.returncode == 2
    assert "members.json: damaged" in done.stderr and "sprintnet ensemble STUDY" in done.stderr


def test_an_unfinished_ensemble_is_made_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "close", killed)
        patch.setattr(experiment, "write_atomic", killed)  # config.toml comes last
        sn.ensemble("some", name="killed")
    done = call(place, "val", "killed")
    assert done.returncode == 2
    assert "the ensemble is unfinished; make it again: sprintnet ensemble runs/study/some" in done.stderr
    assert sn.ensemble("some", name="killed").metrics["ensemble"]["accuracy"]["mean"] > 0


def test_an_ensemble_is_no_run_of_a_study(place: Path, tmp_path: Path) -> None:
    for name in ("study/some/seed-1", "study/some/seed-2", "train/some-ensemble"):
        shutil.copytree(place / "runs" / name, tmp_path / "runs" / "study" / "mixed" / Path(name).name)
    done = call(tmp_path, "compare", "mixed", "mixed")
    assert done.returncode == 2
    assert "some-ensemble: is an ensemble, not a run of one network; move it away" in done.stderr
    done = call(tmp_path, "ensemble", "mixed")
    assert "is an ensemble itself; move it away" in done.stderr


def test_runs_with_other_settings_of_prediction_are_refused(place: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(
            place / "runs" / "study" / "some" / f"seed-{seed}", tmp_path / "runs" / "study" / "two" / f"seed-{seed}"
        )
    run = RunFolder(tmp_path / "runs" / "study" / "two" / "seed-1")
    (run.path / "checksums.txt").unlink()
    run.config.write_text(run.config.read_text().replace("tta = 0.9", "tta = 0.0"))
    done = call(tmp_path, "ensemble", "two")
    assert done.returncode == 2
    assert "differs from" in done.stderr and " in tta; they cannot be one model" in done.stderr
