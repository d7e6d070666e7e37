"""Writes the parts of the reference that the code holds: every command with its options, and every setting."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sprintnet.cli.settings_help import described, docstring
from sprintnet.cli.verbs import VERBS
from sprintnet.config import load_config

PLACE = Path(__file__).parent / "_generated"


def commands() -> Iterator[str]:
    """Yields a section for each verb: usage, what it does, its options."""
    for name, (run, form, options) in VERBS.items():
        yield f"## {name}\n\n{docstring(run)}\n\n```sh\nsprintnet {name} {form}".rstrip() + "\n```\n"
        if options:
            yield "| option | |\n|---|---|"
            yield from (f"| {_code(_usage(option, details))} | {_cell(details['help'])} |" for option, details in options)
        yield ""


def settings() -> Iterator[str]:
    """Yields the settings of each section, with the values of the recipe davidnet."""
    section = None
    for setting in described(load_config("davidnet")):
        if setting.section != section:
            section = setting.section
            yield f"\n## {section or 'Of a run'}\n\n{setting.about}.\n"
        yield f"{_code(f'{setting.key} = {setting.value}'.rstrip())}\n: {_prose(setting.text)}\n"


def _usage(option: str, details: dict[str, Any]) -> str:
    return " ".join(filter(None, (option, details.get("metavar", ""))))


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _prose(text: str) -> str:
    """Returns a text whose signs of multiplication and angle brackets are no Markdown, where they are no code."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def main() -> None:
    """Writes the files that the pages include, where they have changed."""
    PLACE.mkdir(exist_ok=True)
    for name, lines in (("commands", commands()), ("settings", settings())):
        file, text = PLACE / f"{name}.md", "\n".join(lines) + "\n"
        if not file.exists() or file.read_text("utf-8") != text:
            file.write_text(text, "utf-8")
