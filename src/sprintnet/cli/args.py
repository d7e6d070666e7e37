"""What the words after a verb and its options mean: a recipe, overrides, or a mistake."""

from pathlib import Path
from typing import TYPE_CHECKING

from sprintnet.errors import SettingsError

if TYPE_CHECKING:
    from sprintnet.config import Config

DEFAULT_RECIPE = "sprint94"


def recipe_and_overrides(words: list[str]) -> tuple[str, list[str]]:
    """Returns the recipe, which comes first or not at all, and the overrides."""
    if words and "=" not in words[0] and not words[0].startswith("--"):
        return words[0], overrides_in(words[1:])
    return DEFAULT_RECIPE, overrides_in(words)


def overrides_in(words: list[str]) -> list[str]:
    """Returns `key=value` from the words of a command line, in which `--key value` and `--key=value` are other spellings."""
    overrides, left = [], list(words)
    while left:
        word = left.pop(0)
        if word.startswith("--") and "=" not in word:
            word = f"{word}={left.pop(0)}" if left else word
        overrides.append(word.removeprefix("--"))
    return overrides


def refuse(words: list[str]) -> None:
    """Raises SettingsError where anything is left over."""
    if words:
        raise SettingsError(f"not understood: {' '.join(words)}; see sprintnet --help")


def check_folder_of(output: str) -> None:
    """Raises SettingsError where the folder that is to hold a file is not there, or a folder has the file's name."""
    if output and Path(output).is_dir():
        raise SettingsError(f"--output {output}: is a folder; name a file in it")
    folder = Path(output).parent
    if not folder.is_dir():
        raise SettingsError(f"--output {output}: there is no folder {folder}; make it first")


def load_available_config(recipe: str, overrides: list[str]) -> "Config":
    """Returns the settings of a recipe whose data can be had."""
    from sprintnet.config import load_config
    from sprintnet.data.custom.load import require_available

    config = load_config(recipe, overrides)
    require_available(config.data.name)
    return config
