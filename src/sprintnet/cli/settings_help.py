"""The settings in a verb's --help: key=value, and the first sentence of the setting's docstring."""

import argparse
import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, NoReturn

from sprintnet.cli.args import recipe_of

COMMON = {"epochs", "batch_size", "seed", "precision", "device", "threads", "data.name", "data.val", "optim.max_lr"}
OF_NEW_NETWORKS, OF_PRETRAINED = {"model.width"}, {"data.size", "head.fit"}


def docstring(function: Callable[..., Any]) -> str:
    """Returns a function's docstring from its source: `python -OO` keeps none."""
    (declared,) = ast.parse(inspect.getsource(function)).body
    return ast.get_docstring(declared) or ""  # type: ignore[arg-type]


class DescribedSetting(NamedTuple):
    """A setting: section ("" or `data`, ...), what the section is about, name with the section, value, docstring."""

    section: str
    about: str
    key: str
    value: str
    text: str


def described(settings: Any, section: str = "") -> Iterator[DescribedSetting]:
    """Yields the settings of a Config with their docstrings, in the order of its source; sections after their first setting."""
    (declared,) = ast.parse(inspect.getsource(type(settings))).body
    about = (ast.get_docstring(declared) or "").split("\n\n")[0].removesuffix(".")  # type: ignore[arg-type]
    for field, after in zip_longest(declared.body, declared.body[1:]):  # type: ignore[attr-defined]
        if not isinstance(field, ast.AnnAssign):
            continue
        name = ast.unparse(field.target)
        value = getattr(settings, name)
        if is_dataclass(value):
            yield from described(value, name)
        else:
            key = f"{section}.{name}" if section else name
            yield DescribedSetting(section, about, key, _text(value), " ".join(ast.literal_eval(after.value).split()))


def print_help(parser: argparse.ArgumentParser, options: argparse.Namespace) -> NoReturn:
    """Prints a verb's options and its settings, the common ones or all, and exits."""
    from sprintnet.config import load_config

    common = parser.add_argument_group(f"settings of {recipe_of(options)} (KEY=VALUE or --KEY VALUE; --data X: data.name)")
    groups = {"": common}
    config = load_config(recipe_of(options), options.overrides)
    shown = COMMON | (OF_PRETRAINED if config.init_from else OF_NEW_NETWORKS)
    for setting in described(config):
        if options.help == "common" and setting.key not in shown:
            continue
        if setting.section not in groups:
            title = f"{setting.section}: {setting.about}"
            groups[setting.section] = common if options.help == "common" else parser.add_argument_group(title)
        sentence = setting.text.split(". ")[0].removesuffix(".")
        groups[setting.section].add_argument(
            setting.key, metavar=f"{setting.key}={setting.value}", help=sentence.replace("%", "%%")
        )
    parser.print_help()
    parser.exit()


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
