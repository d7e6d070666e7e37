"""The search: what it claims in simulation, where the truth is known; real searches on the sample, killed and resumed."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from conftest import TINY, Command
from null_searches import PLAN, Simulation, count_claims
from sprintnet.config import load_config
from sprintnet.errors import SettingsError
from sprintnet.experiments.tuning.search import (
    FRESH_FOLD,
    FRESH_SEED,
    Plan,
    Run,
    Search,
    beats,
    holm,
    rank_correlations,
    search,
)
from sprintnet.experiments.tuning.space import Dimension, propose, read_space
from sprintnet.reporting.text.tuning import result_lines
from sprintnet.runs.folder import read_json, read_rows

SPACE = """
[tune.space]
"optim.max_lr" = {low = 0.0001, high = 0.2, log = true}
label_smoothing = [0.0, 0.2]
"""


def test_settings_that_change_nothing_are_better_at_most_at_the_level() -> None:
    searches = 150
    claims, finalists = count_claims(searches, seed=0)
    assert claims <= stats.binom.ppf(0.999, searches, PLAN.level)
    assert finalists > 0  # some of the searches had a winner to refuse


def test_a_better_setting_is_found_and_shown() -> None:
    simulation = Simulation(seed=1, effect=0.02)
    found = search(PLAN, {"x": 0.0}, simulation.propose, simulation.evaluate)
    assert found.is_better(PLAN.level)
    assert abs(found.trials[found.best]["x"] - 0.5) < 0.3
    final = found.final["accuracy"]
    assert final.low < 0.02 * simulation.gain(found.trials[found.best]) < final.high
    assert all(run.fold == FRESH_FOLD for run in found.scores if run.seed >= FRESH_SEED)
    assert {run.fold for run in found.scores if run.seed < FRESH_SEED} == {1}
    assert [(few, many) for few, many, _, _ in rank_correlations(PLAN, found)] == [(3, 6), (6, 13)]


def test_trials_are_compared_with_the_same_seeds_and_images_after_equal_trainings() -> None:
    simulation = Simulation(seed=2, effect=0.02)
    found = search(PLAN, {"x": 0.0}, simulation.propose, simulation.evaluate)
    by_trial = {trial: {run[1:] for run in found.scores if run.trial == trial} for trial in (0, found.best)}
    assert {run for run in by_trial[found.best] if run[2] == FRESH_FOLD} == {run for run in by_trial[0] if run[2] == FRESH_FOLD}
    assert len(simulation.asked) == len(set(simulation.asked))  # no run is trained twice


def test_every_paired_test_is_kept_and_shown() -> None:
    scores = {(0, 0): 0.5, (0, 1): 0.6, (0, 2): 0.7, (1, 0): 0.52, (1, 1): 0.65, (1, 2): 0.76}
    found = Search(trials=[{}, {"x": 1}])

    def evaluate(runs: Sequence[Run]) -> list[Mapping[str, float]]:
        return [{"accuracy": scores[run.trial, run.seed]} for run in runs]

    assert not beats(Plan((3,), looks=(2, 3)), found, 1, evaluate)
    expected = [stats.ttest_rel([0.52, 0.65, 0.76][:n], [0.5, 0.6, 0.7][:n]).pvalue for n in (2, 3)]
    assert [(look.trial, look.best, look.seeds, look.level) for look in found.looks] == [(1, 0, n, 0.025) for n in (2, 3)]
    assert [look.p for look in found.looks] == pytest.approx(expected)
    assert found.looks[-1].difference == pytest.approx(0.13 / 3)
    result = {"trials": 2, "runs": 6, "final": {}, "looks": [look._asdict() for look in found.looks]}
    assert list(result_lines(result))[1:] == [
        "no trial was shown to be better by the paired t-tests of the search:",
        f"trial 1 against the recipe: +4.33 points, 3 seeds, p = {expected[1]:.3f}, better below 0.025",
    ]
    assert list(result_lines(result | {"looks": []}))[1:] == [
        "no trial was shown to be better: the recipe led the shorter trainings"
    ]


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert holm([0.7, 0.8]) == [1.0, 1.0]


def test_proposals_are_a_function_of_the_history() -> None:
    choices = Dimension("b", choices=("x", "y"))
    space = [Dimension("a", low=0.01, high=10.0, log=True), choices, Dimension("c", low=16, high=64, step=16)]
    history = [({"a": 0.1 * n, "b": "x", "c": 32}, 0.5 + 0.01 * n) for n in range(1, 13)]
    first, again = (propose(space, history, 4) for _ in range(2))
    assert first == again
    assert first != propose(space, history[:-1], 4)
    for settings in first:
        assert 0.01 <= settings["a"] <= 10
        assert settings["b"] in ("x", "y")
        assert settings["c"] in (16, 32, 48, 64)
    assert len(propose(space, [({"a": 1000.0, "b": "x", "c": 32}, 0.5)], 2)) == 2  # a recipe outside of the space


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no table \[tune.space\]"),
        ("[tune.space]\nmomentun = [0, 1]", "momentun: there is no such setting"),
        ("[tune.space]\nepochs = [3, 6]", "epochs: cannot be searched over"),
        ('[tune.space]\n"data.val" = [0.1, 0.2]', "data.val: cannot be searched over"),
        ("[tune.space]\nlabel_smoothing = [0.1]", "must be a list of two or more values, or a range"),
        ("[tune.space]\nlabel_smoothing = {low = 0.5, high = 0.1}", "low must be below high"),
        ("[tune.space]\nlabel_smoothing = {low = 0.0, high = 0.1, log = true}", "above 0 with log"),
        ("[tune.space]\nlabel_smoothing = {low = 0.0, high = 0.1, step = -1}", "step above 0"),
        ('[tune.space]\n"optim.max_lr" = {low = 0.1, high = 1, log = true, step = 0.1}', "not with log"),
        ('[tune.space]\n"model.width" = {low = 4.5, high = 9}', "a range of whole numbers"),
        ("tune = 3", r"has no table \[tune.space\]"),
        ("[tune]\nspace = 3", r"has no table \[tune.space\]"),
        ("[tune.space]\nlabel_smoothing = {low = 0, high = 2}", "label_smoothing=2.0: must be at least 0 and below 1"),
        ("[tune.space", "cannot be read"),
    ],
)
def test_a_space_with_a_mistake_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_space(tmp_path / "space.toml", load_config("davidnet"), "davidnet", [])


WORDS = ["model.width=4", "batch_size=16", "threads=1", "precision=fp32", "epochs=8", "augment.cutout=0"]
WORDS += ["data.val=0.25", "data.test=0", "label_smoothing=0.1", "optim.max_lr=0.0001"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy images of three colours."""
    folder, generator = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name, colour in {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}.items():
        (folder / name).mkdir()
        for number in range(40):
            pixels = np.clip(generator.normal(colour, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def words(folder: Path, data: Path) -> list[str]:
    (folder / "space.toml").write_text(SPACE)
    space = ["--space", str(folder / "space.toml"), "--trials", "6", "--confirm", "4"]
    return ["tune", "davidnet", *WORDS, f"data.name={data}", *space]


def test_a_detuned_recipe_is_recovered_and_a_killed_search_goes_on(sprintnet: Command, tmp_path: Path, data: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sprintnet", *words(tmp_path, data)], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    folder = tmp_path / "runs" / "tune" / "davidnet"
    while len(list(folder.glob("*/metrics.json"))) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = sprintnet(*words(tmp_path, data), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    undisturbed = sprintnet(*words(tmp_path, data), "--name", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    results = [read_json(folder.with_name(name) / "tune.json") for name in ("davidnet", "undisturbed")]
    assert results[0] == results[1]
    result, rows = results[0], read_rows(folder / "trials.csv")
    assert len(rows) == result["runs"]
    assert result["is_better"], resumed.stdout
    assert result["settings"]["optim.max_lr"] > 0.001  # the detuned rate is 0.0001
    best = load_config(folder / "best.toml")
    assert best.optim.max_lr == result["settings"]["optim.max_lr"]
    assert (best.epochs, best.data.fold) == (8, "")
    assert "it is better" in resumed.stdout
    for name in ("tune.html", "best.toml", "journal.json"):
        assert (folder / name).exists()
    for run in folder.glob("*/metrics.json"):
        assert "test" not in read_json(run)
    again = sprintnet("train", str(folder / "best.toml"), "--no-report")
    assert again.returncode == 0, again.stderr


def test_trials_that_diverge_do_not_end_the_search(sprintnet: Command, tmp_path: Path, data: Path) -> None:
    (tmp_path / "space.toml").write_text('[tune.space]\n"optim.max_lr" = [9000.0, 10000.0]\n')
    command = ["tune", "davidnet", *WORDS, f"data.name={data}", "--space", str(tmp_path / "space.toml"), "--trials", "3"]
    done = sprintnet(*command)
    assert done.returncode == 0, done.stderr
    assert "trial 1, 2 epochs, seed 0: diverged" in done.stdout
    assert "no trial was shown to be better" in done.stdout
    again = sprintnet(*command, "--resume")
    assert again.returncode == 0, again.stderr
    assert "diverged" not in again.stdout  # known from the journal
    (tmp_path / "space.toml").write_text('[tune.space]\n"optim.max_lr" = [0.1, 10000.0]\n')
    other = sprintnet(*command, "--resume")
    assert other.returncode == 2
    assert "was started with another space (optim.max_lr: 9000.0, 10000.0); use it, or another --name" in other.stderr


def test_whole_bounds_of_a_setting_with_decimals_are_a_range_of_decimals(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("[tune.space]\nlabel_smoothing = {low = 0, high = 0.9}\n")
    (dimension,) = read_space(tmp_path / "space.toml", load_config("davidnet"), "davidnet", [])
    assert len({settings["label_smoothing"] for settings in propose([dimension], [], 5)}) == 5


def test_a_search_needs_a_hold_out(sprintnet: Command, tmp_path: Path, data: Path) -> None:
    failed = sprintnet(*words(tmp_path, data), "data.val=auto")
    assert failed.returncode == 2
    assert failed.stderr.startswith(
        "sprintnet: data.val=auto: a search needs a hold-out to choose by, the test set is never used"
    )
    missing = sprintnet("tune", "davidnet", *TINY)
    assert missing.stderr == "sprintnet: --space: name a TOML file with a table [tune.space] of settings and their values\n"
