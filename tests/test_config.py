"""Settings: every recipe loads, every mistake is reported at once, by name, value, rule and remedy."""

import re
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprintnet.config import Config, differences, load_config, recipes
from sprintnet.errors import SettingsError
from sprintnet.runs.folder import dotted


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_loads_and_states_what_to_expect(name: str) -> None:
    assert load_config(name).epochs >= 1
    assert {"network", "accuracy", "with TTA", "training", "hardware", "use"} < set(recipes()[name])


def test_davidnet_is_the_articles_recipe() -> None:
    config = load_config("davidnet")
    assert (config.epochs, config.batch_size) == (24, 512)
    assert (config.optim.max_lr, config.optim.momentum, config.optim.weight_decay) == (0.45, 0.9, 5e-4)
    crops = (config.augment.crop_padding, config.augment.cutout, config.augment.rotate, config.augment.shift)
    assert crops == (2, 8, 5, 0.15)
    assert (config.model.dropout, config.l1) == (0, 0)


def test_sprint94_has_the_published_rates_in_terms_of_the_mean_loss() -> None:
    config = load_config("sprint94")
    size = config.optim.batch_size
    assert (size, config.label_smoothing) == (config.batch_size, 0.2)
    assert (config.muon.max_lr, config.muon.momentum, config.optim.momentum) == (0.24, 0.6, 0.85)
    assert config.optim.max_lr == 0.053 * size  # published for the summed loss
    assert config.optim.head_lr == 0.67 * size
    assert config.optim.max_lr * config.optim.weight_decay == pytest.approx(2e-6 * size, rel=0.002)


def test_overrides_win_over_the_recipe_and_keep_the_rest() -> None:
    changed = load_config("davidnet", ["optim.max_lr=0.4", "seed=3", "schedule.knots=0,2,24", "optim.nesterov=false"])
    assert differences(load_config("davidnet"), changed) == [
        "seed: 0 -> 3",
        "optim.max_lr: 0.45 -> 0.4",
        "optim.nesterov: True -> False",
        "schedule.knots: (0.0, 7.0, 24.0) -> (0.0, 2.0, 24.0)",
    ]


def test_resolved_settings_load_back_equal(tmp_path: Path) -> None:
    config = load_config("davidnet", ["data.name=some folder", "precision=fp16", "data.val=0.1"])
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "config.toml") == config


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        load_config("davidnet").epochs = 3  # type: ignore[misc]


def test_every_mistake_is_in_one_message() -> None:
    overrides = ["epocs=3", "max_lr=1", "data.val=0.9", "precision=fp12", "optim.nesterov=1", "epochs=2.5", "seed=-1"]
    with pytest.raises(SettingsError) as caught:
        load_config("davidnet", overrides)
    assert str(caught.value).splitlines() == [
        "7 mistakes in the settings; nothing was started:",
        "  epocs=3: there is no such setting; did you mean epochs?",
        "  max_lr=1: there is no such setting; did you mean optim.max_lr?",
        "  data.val=0.9: must be at least 0 and at most 0.5, or auto",
        "  precision=fp12: must be one of auto, fp32, bf16, fp16",
        "  optim.nesterov=1: must be true or false",
        "  epochs=2.5: must be a whole number",
        "  seed=-1: must be at least 0 and below 9.22337e+18",
    ]


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("epochs=0", "use 1 or more"),
        ("epochs=-1", "at least 0"),
        ("epochs=", "whole number"),
        ("epochs=true", "whole number"),
        ("optim.max_lr=nan", "must be a finite number"),
        ("lr=1", "did you mean optim.max_lr?"),
        ("xyzzy=1", "`sprintnet train --help all` lists them"),
        ("optim.max_lr=0", "above 0"),
        ("optim.momentum=1", "below 1"),
        ("schedule.knots=0,5,3", "start at 0 and rise"),
        ("schedule.knots=1,2,3", "start at 0 and rise"),
        ("schedule.knots=a,b", "numbers with commas between"),
        ("schedule.factors=1,2", "one number for each of the 3 schedule.knots"),
        ("schedule.factors=1,-1,0", "must not be negative"),
        ("schedule.resolution_milestones=0.1", "must start at 0, rise and stay below 1"),
        ("schedule.resolution_milestones=0,1", "must start at 0, rise and stay below 1"),
        ("schedule.resolution=0.5,1", "one number for each of the 1 in schedule.resolution_milestones"),
        ("schedule.resolution=1.5", "must be above 0 and at most 1"),
        ("epochs=3\nseed=1", "whole number"),
        ("optim=3", "no such setting"),
        ("l1=" + "9" * 400, "must be a finite number"),
        ("schedule.knots=" + "[" * 5000, "numbers with commas between"),
        ("data.name=a\ud800", "printable"),
        ("data.name=a\0b", "printable"),
        ("batch_size=1" + "0" * 30, "at most 1e+06"),
        ("epochs", "written key=value"),
    ],
)
def test_a_broken_rule_is_named(override: str, rule: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(rule)):
        load_config("davidnet", [override])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("davidnett", "did you mean davidnet"),
        ("missing.toml", r"missing.toml: cannot be read \(No such file"),
        ("", "there is no such recipe"),
    ],
)
def test_a_missing_recipe_is_named_with_those_that_exist(recipe: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config(recipe)


@pytest.mark.parametrize(("text", "message"), [("epochs = = 3", "not valid TOML"), ("epochs = '3'", "whole number")])
def test_a_damaged_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_config(tmp_path / "mine.toml")


def test_a_recipe_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_config(tmp_path / "mine.toml")


def test_no_override_changes_no_default() -> None:
    assert asdict(load_config("davidnet", ["auto="])) == asdict(Config())


def test_a_setting_that_is_named_is_not_fitted_to_the_data(tmp_path: Path) -> None:
    shipped = load_config("davidnet").auto
    assert "model.width" in shipped
    named = load_config("davidnet", ["model.width=96", "epochs=auto", "batch_size=auto"])
    assert set(named.auto) == {*shipped, "batch_size"} - {"model.width"}
    assert (named.model.width, named.batch_size) == (96, 512)
    (tmp_path / "run.toml").write_text(named.to_toml())
    assert load_config(tmp_path / "run.toml") == named
    assert load_config(tmp_path / "run.toml", ["batch-size=64"]).auto == tuple(key for key in named.auto if key != "batch_size")
    assert load_config("davidnet", ["auto=epochs, augment.crop-padding"]).auto == ("epochs", "augment.crop_padding")


def test_a_recipe_of_ones_own_may_leave_a_setting_to_the_data(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('epochs = 5\n[model]\nwidth = "auto"\n')
    config = load_config(tmp_path / "mine.toml")
    assert (config.auto, config.epochs, config.model.width) == (("model.width",), 5, Config().model.width)


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        (["seed=auto"], "seed=auto: must be a whole number"),
        (["auto=seed"], "auto=seed: must be one of epochs, batch_size, model.width"),
        (
            ["freeze_backbone=true"],
            "freeze_backbone=true: trains the head of a trained network only; name one: init_from=NAME",
        ),
        (
            ["class_weights=balanced", "sampling=balanced"],
            "class_weights=balanced: with sampling=balanced rare classes would count twice",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides: list[str], rule: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(rule)):
        load_config("davidnet", overrides)


def test_a_list_of_settings_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('auto = "epochs"')
    with pytest.raises(SettingsError, match="auto=epochs: must be a list of settings"):
        load_config(tmp_path / "mine.toml")


def test_a_missing_recipe_does_not_hide_the_other_mistakes() -> None:
    with pytest.raises(SettingsError) as caught:
        load_config("davidnett", ["seed", "epochs=x"])
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == ["  recipe davidnett", "  seed", "  epochs=x"]


@given(st.sampled_from(["", *dotted(asdict(Config()))]), st.text())
def test_no_override_crashes_and_what_is_accepted_loads_back(key: str, text: str) -> None:
    try:
        config = load_config("davidnet", [f"{key}={text}"])
    except SettingsError as error:
        assert str(error)
    else:
        assert tomllib.loads(config.to_toml()).keys() == asdict(config).keys()


@pytest.mark.parametrize("value", ["2026-11-22", "[[1], [2]]", "{ a = 1 }", "-0.0", '"24"', "true"])
def test_odd_toml_is_a_mistake_not_a_crash(tmp_path: Path, value: str) -> None:
    (tmp_path / "mine.toml").write_text(f"epochs = {value}")
    with pytest.raises(SettingsError, match="epochs"):
        load_config(tmp_path / "mine.toml")
