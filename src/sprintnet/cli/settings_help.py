"""The settings in a verb's --help: key=value, and the first sentence of the setting's docstring."""

import argparse
import ast
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from itertools import zip_longest
from typing import Any, NoReturn

from sprintnet.cli.args import recipe_of

COMMON = {"epochs", "batch_size", "seed", "precision", "device", "threads", "data.name", "data.val"}
COMMON |= {"model.width", "optim.max_lr"}


def docstring(function: Callable[..., Any]) -> str:
    """Returns a function's docstring from its source: `python -OO` keeps none."""
    (declared,) = ast.parse(inspect.getsource(function)).body
    return ast.get_docstring(declared) or ""  # type: ignore[arg-type]


def print_help(parser: argparse.ArgumentParser, options: argparse.Namespace) -> NoReturn:
    """Prints a verb's options and its settings, the common ones or all, and exits."""
    from sprintnet.config import load_config

    group = parser.add_argument_group(f"settings of {recipe_of(options)} (KEY=VALUE or --KEY VALUE; --data X: data.name)")
    _add_settings(parser, group, load_config(recipe_of(options), options.overrides), common=options.help == "common")
    parser.print_help()
    parser.exit()


def _add_settings(parser: argparse.ArgumentParser, group: Any, settings: Any, common: bool, prefix: str = "") -> None:
    """Adds the fields of a dataclass to an argument group, and those of the dataclasses in it: the common ones, or all."""
    (declared,) = ast.parse(inspect.getsource(type(settings))).body
    for field, after in zip_longest(declared.body, declared.body[1:]):  # type: ignore[attr-defined]
        if not isinstance(field, ast.AnnAssign):
            continue
        name = ast.unparse(field.target)
        key, value = prefix + name, getattr(settings, name)
        if is_dataclass(value):
            section = group if common else parser.add_argument_group(f"{key}: {(type(value).__doc__ or '').removesuffix('.')}")
            _add_settings(parser, section, value, common, f"{key}.")
        elif key in COMMON or not common:
            sentence = " ".join(ast.literal_eval(after.value).split()).split(". ")[0].removesuffix(".")
            group.add_argument(key, metavar=f"{key}={_text(value)}", help=sentence.replace("%", "%%"))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
