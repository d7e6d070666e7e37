"""The words after a verb: names and overrides of settings."""

import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sprintnet.errors import SettingsError

if TYPE_CHECKING:
    from sprintnet.config import Config

DEFAULT_RECIPE = "sprint94"
NO_FILES = "IMAGE: no image files; name files, folders or patterns, or - for a list on standard input"


def split_words(words: list[str], has_settings: bool) -> tuple[list[str], list[str]]:
    """Returns names, and overrides as `key=value`, of which `--key value` and `--key=value` are other spellings.

    Without settings, only what begins with -- is an override, and one too many.
    """
    names: list[str] = []
    overrides: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if has_settings and word.startswith("--") and "=" not in word and left:
            word = f"{word}={left.pop(0)}"
        (overrides if word.startswith("--") or (has_settings and "=" in word) else names).append(word)
    return names, [word.removeprefix("--") if has_settings else word for word in overrides]


def recipe_of(options: Namespace) -> str:
    """Returns the recipe that a command names, or the default."""
    return options.names[0] if options.names else DEFAULT_RECIPE


def load_recipe(options: Namespace) -> "Config":
    """Returns the settings of a command, whose data are there; raises SettingsError or DataError otherwise."""
    from sprintnet.config import load_config, recipes
    from sprintnet.data.builtin.registry import BUILTIN_DATASETS
    from sprintnet.data.custom.load import require_available

    recipe = recipe_of(options)
    if recipe not in recipes() and not recipe.endswith(".toml"):
        if (Path(recipe) / "config.toml").is_file():
            raise SettingsError(f"recipe {recipe}: is a run folder; to repeat the run, name {Path(recipe) / 'config.toml'}")
        if recipe in BUILTIN_DATASETS or Path(recipe).exists():
            few = "" if recipe in BUILTIN_DATASETS else f", or, of few photos, sprintnet {options.verb} photos --data {recipe}"
            raise SettingsError(f"recipe {recipe}: is data, not a recipe; use: sprintnet {options.verb} --data {recipe}{few}")
    config = load_config(recipe, options.overrides)
    require_available(config.data.name)
    return config


def check_output(output: str) -> None:
    """Raises SettingsError where a file cannot be written: before the work, not after it."""
    folder = Path(output).parent
    for is_wrong, rule in (
        (Path(output).is_dir(), "is a folder; name a file in it"),
        (not folder.is_dir(), f"there is no folder {folder}; create it first"),
        (not os.access(folder, os.W_OK), f"the folder {folder} is not writable; choose another"),
    ):
        if output and is_wrong:
            raise SettingsError(f"--output {output}: {rule}")
