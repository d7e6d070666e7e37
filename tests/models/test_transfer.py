"""Training that starts from an earlier run: it helps, what is frozen stays to the bit, what does not fit is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from conftest import SAMPLE
from sprintnet.config import load_config
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits
from sprintnet.errors import SettingsError
from sprintnet.models.transfer import load_pretrained
from sprintnet.runs.folder import RunFolder, read_arrays, read_rows
from sprintnet.runtime import select_runtime
from sprintnet.training import train as pipeline
from sprintnet.training.lr_search import lr_find
from sprintnet.training.setup import build_step, whiten

CLASSES = sorted(folder.name for folder in (SAMPLE / "train").iterdir() if folder.is_dir())
WORDS = {
    "davidnet": ["threads=1", "precision=fp32", "batch_size=25", "model.width=8", "optim.max_lr=0.1"],
    "sprint94": ["threads=1", "precision=fp32", "batch_size=25", "model.width=8"],
}
Train = Callable[..., RunFolder]
CPU = select_runtime("cpu", "fp32", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample's first five classes as `first`, the others as `second`."""
    folder = tmp_path_factory.mktemp("transfer")
    for name, classes in (("first", CLASSES[:5]), ("second", CLASSES[5:])):
        for part in ("train", "test"):
            (folder / name / part).mkdir(parents=True)
            for label in classes:
                (folder / name / part / label).symlink_to(SAMPLE / part / label)
    return folder


def train(place: Path, run: str, recipe: str, data: str, *words: str) -> RunFolder:
    folder = RunFolder(place / run)
    if not folder.metrics.exists():
        pipeline.train(load_config(recipe, [*WORDS[recipe], f"data.name={place / data}", *words]), folder)
    return folder


@pytest.fixture(scope="module", params=WORDS)
def origin(request: pytest.FixtureRequest, place: Path) -> tuple[str, RunFolder]:
    """A recipe, and its run on the first five classes."""
    return request.param, train(place, f"origin-{request.param}", request.param, "first", "epochs=12")


def test_other_classes_are_learned_sooner(origin: tuple[str, RunFolder], place: Path) -> None:
    recipe, run = origin
    losses = {"": 0.0, str(run.path): 0.0}
    for init in losses:
        for seed in range(1, 4):
            name = f"{recipe}-{seed}-{bool(init)}"
            rows = read_rows(train(place, name, recipe, "second", "epochs=2", f"seed={seed}", f"init_from={init}").results)
            losses[init] += sum(float(row["train_loss"]) for row in rows) / 6
    assert losses[str(run.path)] < losses[""] - 0.02


def test_what_is_frozen_is_the_origins_to_the_bit(origin: tuple[str, RunFolder], place: Path) -> None:
    recipe, run = origin
    frozen = train(
        place, f"{recipe}-frozen", recipe, "second", "epochs=2", f"init_from={run.path}", "freeze_backbone=true", "l1=1e-6"
    )
    before, after = load_file(run.weights), load_file(frozen.weights)
    same = {name for name in before if before[name].shape == after[name].shape and torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in before.keys() - same} == {"linear", "novelty"}
    facts = []
    for weights in (run.weights, frozen.weights):
        with safe_open(weights, "pt") as file:
            facts.append(file.metadata())
    assert facts[0]["normalisation"] == facts[1]["normalisation"]  # not those of the other classes
    line = f"init_from: weights of {run.path}, a new head: {', '.join(CLASSES[5:])} instead of {', '.join(CLASSES[:5])}"
    assert line in frozen.log_text.read_text()
    losses = [float(row["train_loss"]) for row in read_rows(frozen.results)]
    assert losses[1] < losses[0]


def test_the_same_classes_keep_their_head(origin: tuple[str, RunFolder], place: Path) -> None:
    recipe, run = origin
    config = load_config(recipe, [*WORDS[recipe], f"data.name={place / 'first'}", f"init_from={run.path}"])
    said: list[str] = []
    step, loader = build_step(
        config,
        load_splits(config.data)["train"],
        CPU,
        load_pretrained(config.init_from, config.model),
        said.append,
    )
    whiten(step.model, loader, config)
    assert said == [f"init_from: weights of {run.path}, head included"]
    expected = load_file(run.weights)
    assert all(torch.equal(value, expected[name]) for name, value in step.model.state_dict().items())


@pytest.mark.parametrize("frozen", ["true", "false"])
def test_a_resumed_transfer_ends_in_the_same_bits(
    origin: tuple[str, RunFolder], place: Path, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    recipe, run = origin
    words = ["epochs=2", f"init_from={run.path}", f"freeze_backbone={frozen}", "sampling=balanced", "seed=7"]
    words.append("model.dropout=0.2")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "write_rows", stop)  # as the first epoch ends
        train(place, f"{recipe}-cut-{frozen}", recipe, "second", *words)
    cut = RunFolder(place / f"{recipe}-cut-{frozen}")
    pipeline.train(load_config(cut.config), cut, resume=True)
    whole = train(place, f"{recipe}-whole-{frozen}", recipe, "second", *words)
    logits = [read_arrays(each.predictions)["val_logits"] for each in (cut, whole)]
    assert np.array_equal(*logits)


def test_a_resumed_transfer_wants_the_run_that_it_began_from(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = place / "begun-from"
    begun.mkdir()
    weights = train(place, "origin-davidnet", "davidnet", "first", "epochs=12").weights
    shutil.copy(weights, begun / "model.safetensors")  # as an export has it

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "write_rows", stop)
        train(place, "cut", "davidnet", "second", "epochs=2", f"init_from={begun}")
    shutil.copy(train(place, "other", "davidnet", "first", "epochs=1").weights, begun / "model.safetensors")
    cut = RunFolder(place / "cut")
    with pytest.raises(SettingsError, match=r"began with init_sha256 .*; restore the weights that init_from names"):
        pipeline.train(load_config(cut.config), cut, resume=True)


def test_the_rate_is_found_on_the_network_that_is_there(origin: tuple[str, RunFolder], place: Path, tmp_path: Path) -> None:
    recipe, run = origin
    words = [*WORDS[recipe], f"data.name={place / 'second'}", "label_smoothing=0"]
    began = {}
    for init in ("", f"init_from={run.path}"):
        config = load_config(recipe, [*words, *([init, "freeze_backbone=true"] if init else [])])
        (found,) = lr_find(config, RunFolder(tmp_path / f"lr{bool(init)}"), 1, 1e-4, 10, 60)
        began[init] = found["losses"]
        assert min(found["smoothed"]) < found["smoothed"][6]
    assert began[""][0] != began[f"init_from={run.path}"][0]


def test_images_may_have_another_size(origin: tuple[str, RunFolder]) -> None:
    recipe, run = origin
    generator = np.random.default_rng(0)
    images = ImageDataset(generator.integers(0, 256, (30, 48, 40, 3), np.uint8), np.arange(30) % 3, ("a", "b", "c"))
    config = load_config(recipe, [*WORDS[recipe], f"init_from={run.path}"])
    step, loader = build_step(config, images, CPU, load_pretrained(config.init_from, config.model))
    for batch in loader.epoch(0, 0, config.augment):
        step(*batch)
    assert step.read().is_sound


@pytest.mark.parametrize(
    ("recipe", "words", "rule"),
    [
        ("davidnet", ["model.width=9"], r"init_from=.*: has another architecture; use its settings: model.width=8"),
        ("sprint94", [], r"init_from=.*: has another architecture; use its settings: model.name=davidnet"),
        (
            "davidnet",
            ["init_from=nowhere"],
            r"nowhere: there is no such run or file; name a run",
        ),
        ("davidnet", ["init_from=."], r"\.: holds neither weights.safetensors nor model.safetensors"),
        ("davidnet", ["init_from=x"], r"x: not a weights file of this version of SprintNet"),
    ],
)
def test_what_cannot_be_started_from_is_refused_and_leaves_no_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, words: list[str], rule: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    run = train(place, "origin-davidnet", "davidnet", "first", "epochs=12")
    config = load_config(recipe, [*WORDS[recipe], f"data.name={place / 'second'}", f"init_from={run.path}", *words])
    with pytest.raises(SettingsError, match=rule):
        pipeline.train(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run" / "config.toml").exists()


def test_images_of_other_channels_are_refused(place: Path) -> None:
    run = train(place, "origin-davidnet", "davidnet", "first", "epochs=12")
    grey = ImageDataset(np.zeros((30, 32, 32, 1), np.uint8), np.arange(30) % 3, ("a", "b", "c"))
    config = load_config("davidnet", [*WORDS["davidnet"], f"init_from={run.path}"])
    with pytest.raises(SettingsError, match=r"takes images of 3 channels, the data has 1; set data.channels"):
        build_step(config, grey, CPU, load_pretrained(config.init_from, config.model))
