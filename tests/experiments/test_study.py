"""Studies: the statistics against scipy and published tables, then whole studies on the sample, killed and resumed."""

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from conftest import SAMPLE, Command
from sprintnet.config import Config, load_config, resumed
from sprintnet.errors import SettingsError
from sprintnet.experiments.compare import compare, pairs_needed, runs_needed, summarise
from sprintnet.experiments.placement import Placement
from sprintnet.experiments.study import run_study, seed_runs
from sprintnet.experiments.study_runs import metric_values, read_runs
from sprintnet.runs.cores import available_cores
from sprintnet.runs.folder import RunFolder
from sprintnet.studies import compare_folders
from sprintnet.training import train as pipeline


def test_the_interval_is_students() -> None:
    values = [94.1, 94.3, 93.9, 94.2]
    summary = summarise(values)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (summary.low, summary.high) == pytest.approx((interval.low, interval.high))
    assert (summary.n, summary.mean, summary.sd) == (4, pytest.approx(94.125), pytest.approx(stats.tstd(values)))


def test_one_value_has_no_spread() -> None:
    assert summarise([0.9]).mean == 0.9
    assert math.isnan(summarise([0.9]).low)


def test_welch_and_hedges_on_a_worked_example() -> None:
    # scipy's own documentation of ttest_ind, and Hedges' correction written out
    a, b = [20.4, 24.2, 15.4, 21.4, 20.2, 18.5, 21.5], [20.2, 16.9, 18.5, 17.3, 20.5, 21.6, 20.1, 24.5]
    found = compare(a, b)
    assert found.p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert found.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert found.low < found.difference < found.high
    pooled = math.sqrt((6 * np.var(a, ddof=1) + 7 * np.var(b, ddof=1)) / 13)
    assert found.effect == pytest.approx(found.difference / pooled * (1 - 3 / (4 * 13 - 1)))


@pytest.mark.parametrize(("effect", "runs"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17)])
def test_runs_needed_are_cohens_table(effect: float, runs: int) -> None:
    # Cohen 1988, table 2.4.1 (two-sided 5 %, power 80 %), as G*Power prints it
    assert runs_needed(effect, 1, 1) == runs


def test_runs_needed_find_the_difference_four_times_in_five() -> None:
    generator = np.random.default_rng(0)
    needed = runs_needed(0.2, 0.13, 0.26)
    assert needed is not None
    a, b = generator.normal(0, 0.13, (4000, needed)), generator.normal(0.2, 0.26, (4000, needed))
    found = stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_runs_with_the_same_seeds_are_compared_in_pairs() -> None:
    generator = np.random.default_rng(1)
    shared = generator.normal(0.94, 0.002, 6)
    a, b = shared + generator.normal(0, 0.0003, 6), shared + 0.001 + generator.normal(0, 0.0003, 6)
    found = compare(a.tolist(), b.tolist(), is_paired=True)
    expected = stats.ttest_rel(b, a)
    interval = expected.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    unpaired = compare(a.tolist(), b.tolist())
    assert found.p < 0.01 < 0.1 < unpaired.p
    assert found.effect == unpaired.effect
    assert found.runs_needed is not None and unpaired.runs_needed is not None
    assert found.runs_needed < unpaired.runs_needed
    same = compare([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], is_paired=True)  # every pair differs by the same, up to rounding
    assert (same.p, same.effect, same.runs_needed) == (1, compare([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]).effect, None)
    assert math.isnan(same.low)
    assert math.isnan(same.high)


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_pairs_needed_are_those_of_gpower(effect: float, pairs: int) -> None:
    assert pairs_needed(effect, 1) == pairs  # G*Power 3.1, difference between two dependent means, two-sided 5 %, power 80 %


def test_equal_recipes_on_few_images_are_rarely_called_different() -> None:
    accuracies = np.random.default_rng(0).binomial(60, 0.2, (2000, 2, 2)) / 60  # of 2 recipes with 2 seeds, on 60 images
    called = [compare(a.tolist(), b.tolist(), is_paired=True).p < 0.05 for a, b in accuracies]
    assert np.mean(called) < 0.05


def test_sets_without_spread_or_difference() -> None:
    assert compare([1.0, 1.0], [1.0, 1.0]).p == 1
    assert compare([1.0, 1.0], [2.0, 2.0]).p == 1  # each side may have come out the same twice by chance
    assert compare([0.1] * 3, [0.4] * 3).p == 1  # whose standard deviations are not 0 after rounding
    assert compare([0.1] * 3, [0.4] * 3).effect == math.inf
    assert compare([1.0, 2.0], [1.0, 2.0]).runs_needed is None


def test_a_figure_that_a_run_lacks_is_left_out_for_all() -> None:
    plain = {"test": {"images": 100, "accuracy": 0.5, "cross_entropy": 1.0}, "train_seconds": 2.0}
    for images, is_measured in ((100, True), (99, False)):
        calibrated = {**plain, "test": {**plain["test"], "images": images, "calibration": {"ece": 0.1}}}
        assert ("ECE" in metric_values([calibrated])) == is_measured
    views = {**plain, "test": {**plain["test"], "tta": {"accuracy": 0.6}}}
    assert "TTA accuracy" in metric_values([views, views])
    assert metric_values([plain, views])["accuracy"] == [0.5, 0.5]
    assert "TTA accuracy" not in metric_values([plain, views])


def test_a_study_is_ordinary_runs_and_goes_on_where_it_stopped(tmp_path: Path, tiny: list[str]) -> None:
    config = load_config("davidnet", [*tiny, "epochs=1", "seed=5", "data.val=0.2"])  # one hold-out for all seeds
    study = RunFolder(tmp_path / "study")
    first = list(run_study(config, study, seed_runs(config, 2)))
    written = (study.path / "seed-5" / "weights.safetensors").stat().st_mtime_ns
    more = list(run_study(config, study, seed_runs(config, 3)))
    assert more[:2] == first
    assert (study.path / "seed-5" / "weights.safetensors").stat().st_mtime_ns == written
    assert sorted(path.name for path in study.path.iterdir() if path.is_dir()) == ["seed-5", "seed-6", "seed-7"]
    summary = json.loads((study.path / "study.json").read_text())["accuracy"]
    accuracies = [metrics["val"]["accuracy"] for metrics in more]
    assert (summary["n"], summary["mean"]) == (3, pytest.approx(np.mean(accuracies)))
    assert read_runs(study.path) == more
    list(run_study(config, study, seed_runs(config, 2)))
    assert json.loads((study.path / "study.json").read_text())["accuracy"]["n"] == 3
    with pytest.raises(SettingsError, match=r"optim.max_lr: 0.1 -> 0.2"):
        other = load_config("davidnet", [*tiny, "epochs=1", "seed=5", "data.val=0.2", "optim.max_lr=0.2"])
        list(run_study(other, study, seed_runs(other, 3)))


def test_a_folder_keeps_the_threads_and_the_precision_that_a_later_command_leaves_open(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"

    def config(threads: int, precision: str) -> Config:
        return load_config("davidnet", [f"threads={threads}", f"precision={precision}"])

    began = config(2, "fp32")
    assert resumed(file, began) == began
    file.write_text(began.to_toml())
    assert resumed(file, config(0, "auto")) == began
    for other, message in ((config(1, "auto"), "threads: 2 -> 1"), (config(0, "bf16"), "precision: fp32 -> bf16")):
        with pytest.raises(SettingsError, match=message):
            resumed(file, other)
    assert Placement(on="ray:host:1").fix_runtime(resumed(file, config(0, "auto"))) == began
    file.write_text(config(0, "auto").to_toml())
    assert resumed(file, began) == began


def test_a_study_of_several_processes_goes_on_in_one(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    words = ["study", "davidnet", *(word for word in tiny if not word.startswith("threads")), "epochs=1", "--name", "s"]
    for more in (["--seeds", "2", "--jobs", "2"], ["--seeds", "3", "--resume"]):
        done = sprintnet(*words, *more)
        assert done.returncode == 0, done.stderr
    shares = {max(1, available_cores() // 2)}
    assert {load_config(file).threads for file in (tmp_path / "runs/study/s").glob("seed-*/config.toml")} == shares


def test_a_study_at_chance_says_so(sprintnet: Command, tiny: list[str]) -> None:
    done = sprintnet("study", "davidnet", *tiny, "epochs=1", "optim.max_lr=1e-9", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert "\nnot clearly better than chance: always predicting " in done.stdout


def test_a_killed_study_resumes_and_compares_with_another(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    words = ["study", "davidnet", *tiny, "--seeds", "2"]
    process = subprocess.Popen([sys.executable, "-m", "sprintnet", *words], cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not (tmp_path / "runs/study/davidnet/seed-0/metrics.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = sprintnet(*words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "runs/study/davidnet: 2 runs\n" in resumed.stdout
    assert "seed-0: already finished" in resumed.stdout
    slow = sprintnet(*words, "optim.max_lr=0.01", "--name", "slow")
    assert slow.returncode == 0
    assert slow.stdout.count("Run Folder:") == 1
    assert "\n2 of 2: accuracy " in slow.stdout
    assert slow.stdout.splitlines()[-1].startswith("next: sprintnet compare runs/study/slow STUDY ")
    compared = sprintnet("compare", "davidnet", "slow")
    assert compared.returncode == 0, compared.stderr
    assert "since A and B have the same images and seeds; g: " in compared.stdout
    assert sprintnet("compare", "davidnet", "slow", "--split", "test").returncode == 2
    by_val = sprintnet("compare", "davidnet", "slow", "--split", "val")
    assert by_val.stdout == compared.stdout
    assert "other settings: optim.max_lr: 0.1 -> 0.01\n" in compared.stdout
    table = compared.stdout.partition("\nmetric (val)")[2]
    assert re.search(r"accuracy .* [+-]\d+\.\d\d points +-?\d+\.\d\d to", table.replace("to +", "to ")) or "without p" in table
    assert [line.split("  ")[0] for line in table.splitlines()[1:5]] == [
        "accuracy",
        "cross-entropy",
        "ECE",
        "ECE calibrated",
    ]


def test_studies_of_other_images_are_not_paired_and_of_other_classes_not_compared(tmp_path: Path, tiny: list[str]) -> None:
    two = shutil.copytree(SAMPLE, tmp_path / "two")
    for folder in two.glob("*/*"):
        if folder.name not in ("cat", "dog"):
            shutil.rmtree(folder)
    studies = {"a": [], "b": ["data.val=0.4"], "c": [f"data.name={two}"]}
    for name, overrides in studies.items():
        for seed in (0, 1):
            config = load_config("davidnet", [*tiny, "epochs=1", f"seed={seed}", *overrides])
            pipeline.train(config, RunFolder(tmp_path / name / f"seed-{seed}"))
    found = str(compare_folders(tmp_path / "a", tmp_path / "b"))
    assert "caution: A and B have different data" in found
    assert "p: Welch's t-test, since A and B do not have the same images and seeds" in found
    for other, rule in {
        "c": "have different classes; compare studies with the same classes",
        "a": "is compared with itself; name two studies",
        "b/seed-0": "is a run, not a study; name the folder of its study",
    }.items():
        with pytest.raises(SettingsError, match=rule):
            compare_folders(tmp_path / "a", tmp_path / other)


def test_times_are_not_tested_and_a_calibration_of_its_own_images_is_said(tmp_path: Path, tiny: list[str]) -> None:
    for name, overrides in {"a": [], "b": ["optim.max_lr=0.05"]}.items():
        config, study = load_config("davidnet", [*tiny, "epochs=1", *overrides]), RunFolder(tmp_path / name)
        list(run_study(config, study, seed_runs(config, 2)))
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    times = found.details["training seconds"]
    assert np.isnan([times.p, times.low, times.high]).all() and times.runs_needed is None
    assert "times are not tested" in str(found)
    assert "ECE calibrated: the same images fitted the temperature, so it is optimistic" in str(found)


def test_runs_that_differ_in_more_than_their_seed_have_no_mean(tmp_path: Path, tiny: list[str]) -> None:
    for name, overrides in {"one": ["seed=1"], "two": ["seed=2", "optim.max_lr=0.2"]}.items():
        pipeline.train(load_config("davidnet", [*tiny, "epochs=1", *overrides]), RunFolder(tmp_path / name))
    with pytest.raises(SettingsError, match=r"two: differs from .*one in optim.max_lr: 0.1 -> 0.2; they cannot be averaged"):
        read_runs(tmp_path)
    environment = json.loads((tmp_path / "one" / "environment.json").read_text())
    pipeline.train(load_config("davidnet", [*tiny, "epochs=1", "seed=3"]), RunFolder(tmp_path / "same" / "three"))
    (tmp_path / "one").rename(tmp_path / "same" / "one")
    assert len(read_runs(tmp_path / "same")) == 2
    (tmp_path / "same" / "one" / "checksums.txt").unlink()
    (tmp_path / "same" / "one" / "environment.json").write_text(json.dumps({**environment, "code_sha256": "another"}))
    with pytest.raises(SettingsError, match="in code_sha256; they cannot be averaged"):
        read_runs(tmp_path / "same")


def test_a_study_is_not_gone_on_with_by_other_code(tmp_path: Path, tiny: list[str]) -> None:
    config, study = load_config("davidnet", [*tiny, "epochs=1"]), RunFolder(tmp_path / "study")
    list(run_study(config, study, seed_runs(config, 1)))
    first = RunFolder(study.path / "seed-0")
    (first.path / "checksums.txt").unlink()
    first.environment.write_text(json.dumps({**json.loads(first.environment.read_text()), "code_sha256": "another"}))
    with pytest.raises(SettingsError, match="seed-0: was trained by other code"):
        list(run_study(config, study, seed_runs(config, 2)))
    assert not (study.path / "seed-1").exists()


def test_a_study_that_cannot_start_leaves_its_name_free(tmp_path: Path, tiny: list[str]) -> None:
    study = RunFolder(tmp_path / "study")
    with pytest.raises(SettingsError):
        config = load_config("davidnet", [*tiny, "augment.cutout=40"])
        list(run_study(config, study, seed_runs(config, 2)))
    assert not study.config.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "smoke", "--seeds", "1"], "--seeds 1: must be a whole number from 2 to"),
        (["compare", "nowhere", "."], "nowhere: no such study folder"),
        (["compare", ".", "."], "0 finished runs; a standard deviation needs two or more"),
        (["study", "smoke", "epocs=1"], "epocs=1: there is no such setting"),
    ],
)
def test_mistakes(sprintnet: Command, arguments: list[str], message: str) -> None:
    finished = sprintnet(*arguments)
    assert finished.returncode == 2
    assert message in finished.stderr
