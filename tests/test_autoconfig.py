"""What recipes leave to the data: CIFAR-10 changes nothing, other data what they ask for, the user's values stay."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import SAMPLE, Command
from sprintnet.autoconfig import DatasetFacts, resolve
from sprintnet.config import Adaptable, Config, differences, load_config, recipes
from sprintnet.models.factory import build_model
from sprintnet.models.settings import ModelSettings
from sprintnet.runs.folder import RunFolder, read_arrays
from sprintnet.training import train as pipeline

CIFAR10 = DatasetFacts(50_000, 10, (32, 32, 3))


@pytest.mark.parametrize("recipe", recipes())
@pytest.mark.parametrize("val", [0.0, 0.1, 0.5])
def test_for_cifar10_every_recipe_is_what_it_says(recipe: str, val: float) -> None:
    config = load_config(recipe)
    fitted, lines = resolve(config, DatasetFacts(round((1 - val) * 50_000), 10, (32, 32, 3)))
    assert (differences(fitted, config), lines) == ([f"auto: () -> {config.auto}"], ())


def resolved(recipe: str, facts: DatasetFacts, *overrides: str) -> dict[str, str]:
    """What is fitted: setting -> old and new value."""
    config = load_config(recipe, overrides)
    changed = differences(config, resolve(config, facts)[0])
    return dict(line.split(": ", 1) for line in changed if not line.startswith("auto"))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (DatasetFacts(6_250, 10, (32, 32, 3)), {"epochs": "13 -> 26", "batch_size": "1000 -> 500"}),
        (DatasetFacts(60_000, 21, (32, 32, 3)), {"model.width": "64 -> 96", "optim.head_lr": "670.0 -> 1005.0"}),
        (DatasetFacts(60_000, 20, (28, 28, 3)), {}),
        (DatasetFacts(60_000, 10, (64, 64, 3)), {"model.stride": "1 -> 2", "augment.crop_padding": "2 -> 4"}),
        (DatasetFacts(60_000, 10, (48, 48, 3)), {"model.stride": "1 -> 2", "augment.crop_padding": "2 -> 3"}),
        (DatasetFacts(60_000, 10, (47, 47, 3)), {"augment.crop_padding": "2 -> 3"}),
        (DatasetFacts(60_000, 10, (96, 96, 3)), {"model.stride": "1 -> 3", "augment.crop_padding": "2 -> 6"}),
    ],
)
def test_sprint94_is_fitted_to_few_images_many_classes_and_large_sides(facts: DatasetFacts, expected: dict[str, str]) -> None:
    assert resolved("sprint94", facts) == expected


def test_cutout_grows_with_the_side_and_stays_off_where_it_is_off() -> None:
    assert resolved("sprint95-long", DatasetFacts(50_000, 10, (64, 64, 3)))["augment.cutout"] == "12 -> 24"
    assert "augment.cutout" not in resolved("sprint94", DatasetFacts(50_000, 10, (64, 64, 3)))
    assert resolved("davidnet", DatasetFacts(50_000, 10, (16, 16, 3))) == {
        "augment.crop_padding": "2 -> 1",
        "augment.cutout": "8 -> 4",
    }


@pytest.mark.parametrize(("name", "flip"), [("mnist", 0), ("svhn", 0), ("digits", 0), ("fashion-mnist", 0.5), ("cifar10", 0.5)])
def test_digits_are_not_mirrored(name: str, flip: float) -> None:
    config, lines = resolve(load_config("sprint94", [f"data.name={name}"]), CIFAR10)
    assert config.augment.flip == flip
    assert [line for line in lines if "flip" in line] == ([] if flip else [
        "augment.flip=0 instead of 0.5: a mirrored image has another meaning"
    ])  # fmt: skip


def test_own_data_keep_the_flip_and_are_told_so() -> None:
    config, lines = resolve(load_config("sprint94", ["data.name=photos"]), CIFAR10)
    assert config.augment.flip == 0.5
    assert lines == ("augment.flip=0.5 is kept: set augment.flip=0 if a mirrored image means something else",)
    assert not resolve(load_config("sprint94", ["data.name=photos", "augment.flip=0.5"]), CIFAR10)[1]


@pytest.mark.parametrize(
    ("recipe", "data", "images", "is_hinted"),
    [
        ("sprint94", "pictures", 9_999, True),
        ("sprint94", "pictures", 10_000, False),
        ("sprint94", "mnist", 100, False),
        ("photos", "pictures", 100, False),
    ],
)
def test_few_images_of_ones_own_come_with_a_hint_of_pretrained_weights(
    recipe: str, data: str, images: int, is_hinted: bool
) -> None:
    _, lines = resolve(load_config(recipe, [f"data.name={data}"]), DatasetFacts(images, 10, (64, 64, 3)))
    assert any("the recipe photos" in line for line in lines) == is_hinted


def test_crops_of_images_that_nothing_is_trained_with_are_not_adapted() -> None:
    large = DatasetFacts(2000, 10, (224, 224, 3))
    assert resolved("photos", large)["augment.crop_padding"] == "2 -> 14"
    assert "augment.crop_padding" not in resolved("photos", DatasetFacts(60, 3, (224, 224, 3)))
    assert "augment.crop_padding" not in resolved("photos", large, "epochs=0")


ANY = st.builds(
    DatasetFacts,
    st.integers(2, 200_000),
    st.integers(2, 2_000),
    st.tuples(st.integers(9, 300), st.integers(9, 300), st.just(3)),
)


@given(st.sampled_from(list(recipes())), ANY, st.sampled_from(["photos", "mnist"]))
def test_what_is_fitted_keeps_the_rules_and_fits_once(recipe: str, facts: DatasetFacts, name: str) -> None:
    config = load_config(recipe, [f"data.name={name}"])
    once, lines = resolve(config, facts)
    assert resolve(once, facts) == (once, ())
    assert once.batch_size <= max(2, facts.images)
    assert load_config_of(once) == once  # every value is one that a user could give
    changed = {line.split("=")[0] for line in lines if "is kept" not in line and "the recipe photos" not in line}
    assert changed == {line.split(":")[0] for line in differences(config, once)} - {"auto"}
    if once.model.stride > 1:
        build_model(ModelSettings("sprintnet", 4, stride=once.model.stride), 2, facts.image_shape)


def load_config_of(config: Config) -> Config:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fitted.toml"
        path.write_text(config.to_toml())
        return load_config(path)


@given(st.integers(2, 24_999))
def test_few_images_make_as_many_steps_as_25_000(images: int) -> None:
    config = load_config("sprint94")
    fitted, _ = resolve(config, DatasetFacts(images, 10, (32, 32, 3)))
    steps = fitted.epochs * images / fitted.batch_size
    assert steps >= 0.9 * config.epochs * 25_000 / config.batch_size
    assert fitted.epochs * images <= config.epochs * 25_000  # and in no more time


NAMED_VALUES = {
    "epochs": 7, "batch_size": 40, "model.width": 24, "model.stride": 1, "optim.head_lr": 5.0,
    "augment.crop_padding": 1, "augment.cutout": 3, "augment.flip": 0.25,
}  # fmt: skip


@given(st.sampled_from(list(recipes())), ANY, st.sets(st.sampled_from(get_args(Adaptable))))
def test_what_the_user_names_is_never_changed(recipe: str, facts: DatasetFacts, names: set[str]) -> None:
    config = load_config(recipe, ["data.name=mnist", *(f"{name}={NAMED_VALUES[name]}" for name in names)])
    fitted, lines = resolve(config, DatasetFacts(max(facts.images, 40), facts.classes, facts.image_shape))
    assert not {line.split(":")[0] for line in differences(config, fitted)} & names
    assert not {line.split("=")[0] for line in lines} & names


def test_a_batch_of_all_images_has_the_rates_of_its_size() -> None:
    config = load_config("sprint94", ["batch_size=1000", "epochs=3"])
    fitted, lines = resolve(config, DatasetFacts(200, 10, (32, 32, 3)))
    assert (fitted.batch_size, fitted.peak_lr) == (200, config.peak_lr)  # Muon's rate does not hang on it
    assert fitted.optim.scaled_to(fitted.batch_size).max_lr == pytest.approx(53 / 5)
    assert lines[-1] == "batch_size=200 instead of 1000: there are no more training images"


def test_a_network_that_is_there_keeps_its_form() -> None:
    start = ModelSettings("sprintnet", width=32, stride=2)
    found = resolved("sprint94", DatasetFacts(50_000, 100, (32, 32, 3), start), "init_from=runs/train/mine")
    assert found == {"model.width": "64 -> 32", "model.stride": "1 -> 2", "optim.head_lr": "670.0 -> 335.0"}


def test_a_run_says_and_keeps_what_it_chose_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"data.name={SAMPLE}", "model.width=4", "threads=1", "precision=fp32", "epochs=2", "seed=3"]
    run, config = RunFolder(tmp_path / "run"), load_config("sprint94", words)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "write_rows", stop)  # as the first epoch ends
        pipeline.train(config, run)
    pipeline.train(config, run, resume=True)
    assert load_config(run.config) == config
    kept = load_config(run.resolved)
    assert (kept.batch_size, kept.epochs, kept.auto) == (85, 2, ())
    head = [line.removeprefix("# ") for line in run.resolved.read_text().splitlines() if line.startswith("#")]
    few = "180 training images are fewer than 25,000, too few steps with the recipe's batch size"
    assert head[0] == f"batch_size=85 instead of 1000: {few}"
    assert all(f"auto: {line}" in run.log_text.read_text() for line in head)
    explicit = RunFolder(tmp_path / "explicit")  # what is kept is the run
    pipeline.train(kept, explicit)
    assert np.array_equal(read_arrays(explicit.predictions)["val_logits"], read_arrays(run.predictions)["val_logits"])


def test_resolved_settings_are_recorded_even_where_nothing_changed(tmp_path: Path, tiny: list[str]) -> None:
    run, config = RunFolder(tmp_path / "run"), load_config("davidnet", [*tiny, "auto="])
    pipeline.train(config, run)
    assert load_config(run.resolved) == config


def test_summary_shows_the_network_as_fitted_to_the_data(sprintnet: Command) -> None:
    shown = sprintnet("summary", "sprint94", f"data.name={SAMPLE}").stdout
    assert shown.startswith("auto: batch_size=85 instead of 1000: 180 training images are fewer")
    assert len([line for line in shown.splitlines() if line.startswith("| ")]) == 1 + 153
    assert "auto" not in sprintnet("summary", "sprint94").stdout
