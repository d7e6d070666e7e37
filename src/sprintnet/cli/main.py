"""The command line: what is typed becomes a verb with options; the exit code and message of every failure."""

import argparse
import contextlib
import io
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from PIL import Image

from sprintnet import __version__
from sprintnet.cli.args import split_words
from sprintnet.cli.settings_help import docstring, print_help
from sprintnet.cli.terminal import BOLD, RED, styled
from sprintnet.cli.verbs import EXAMPLES, FIRST_STEPS, GROUPS, OVERRIDES, RECIPE, SETTINGS_HELP, VERBS
from sprintnet.errors import SettingsError, SprintNetError, did_you_mean, is_out_of_memory, missing_extra, nearest
from sprintnet.runs import folder
from sprintnet.runs.environment import own_rank

SAID_BY_THE_FIRST = (SettingsError.exit_code, 128 + signal.SIGINT, 128 + signal.SIGTERM)
RESUMABLE = ("train", "study", "tune", "label-errors")
MIN_COLUMNS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code (see sprintnet.errors); a user error is one message without a traceback."""
    _use_standard_streams()
    os.environ["MPLBACKEND"] = "agg"  # a notebook's backend, which its shell commands inherit, may not be installed here
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # images.py has a limit of its own
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with _interrupted_by_signals():
            options = _parse(arguments)
            VERBS[options.verb][0](options)
            sys.stdout.flush()
    except SprintNetError as error:
        return _fail(getattr(error, "flag_message", str(error)), error.exit_code)
    except ModuleNotFoundError as error:
        if not (needs := missing_extra(error)):
            raise
        return _fail(f"`sprintnet {arguments[0]}` {needs}", SettingsError.exit_code)
    except KeyboardInterrupt as interrupt:
        number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
        more = "; continue with the same command and --resume" if arguments[0] in RESUMABLE else ""
        return _fail(f"{number.name}: interrupted; finished files are kept{more}", 128 + number)
    except BrokenPipeError:  # the reader, such as `head`, has ended
        _drop_output()
        return 141
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail(
            "out of memory; close other programs, or use a smaller batch size or fewer threads", SprintNetError.exit_code
        )
    except OSError as error:
        _drop_output()
        cause = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        repeat = "with --resume" if arguments[0] in RESUMABLE else "again"
        return _fail(f"{cause}; fix the cause and run the command {repeat}", SprintNetError.exit_code)
    return 0


def _use_standard_streams() -> None:
    """Replaces standard streams that are closed, and lets file names through that are no valid text."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Discards what is still to be printed where standard output cannot be written: Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGINT end the block by an exception; the first process of a container would ignore SIGTERM, and what a
    script starts in the background SIGINT."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # Python delivers signals there only
        yield
        return
    handlers = {signal.SIGTERM: interrupt, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are SettingsErrors, and whose help needs no less than MIN_COLUMNS (argparse would never end)."""

    def __init__(self, program: str, formatter_class: Any = argparse.HelpFormatter, **options: Any):
        width = max(shutil.get_terminal_size().columns - 2, MIN_COLUMNS)
        super().__init__(program, formatter_class=partial(formatter_class, width=width), **options)

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the verb, its options, `names` and `overrides`; raises SettingsError for what is not understood."""
    name = arguments[0] if arguments else "--help"
    if name not in VERBS:
        _parse_without_verb([name])
        raise SettingsError(f"{name}: there is no such verb{did_you_mean(name, VERBS) or '; see sprintnet --help'}")
    run, form, known = VERBS[name]
    usage = f"sprintnet {name} {form}".strip() + " [options]"
    parser = _Parser(f"sprintnet {name}", usage=usage, description=docstring(run), add_help=False, allow_abbrev=False)
    if form == RECIPE:
        parser.add_argument("-h", "--help", nargs="?", const="common", help="this help; `--help all` lists every setting")
    else:
        parser.add_argument("-h", "--help", action="help", help="this help")
        parser.epilog = f"KEY=VALUE: {SETTINGS_HELP}" if OVERRIDES in form else None
    for option, details in known:
        parser.add_argument(option, **details)
    options, words = parser.parse_known_args(arguments[1:])
    options.verb, has_settings = name, OVERRIDES in form
    options.names, options.overrides = split_words(words, has_settings)
    if form == RECIPE and options.help:
        if options.help not in ("common", "all"):  # --help RECIPE
            options.names.insert(0, options.help)
        print_help(parser, options)
    if options.overrides and not has_settings:
        hint = did_you_mean(options.overrides[0], dict(known))
        raise SettingsError(f"{options.overrides[0]}: there is no such option; see {parser.prog} --help{hint}")
    if has_settings:
        _require_no_mistyped_option(words, dict(known))
    expected = form.removesuffix(OVERRIDES).split()
    required = sum(not word.startswith("[") for word in expected)
    if len(options.names) < required:
        example = f"such as: sprintnet {name} {EXAMPLES[' '.join(expected[:required])]}"
        raise SettingsError(f"{expected[len(options.names)]} is missing; usage: {usage}; {example}")
    if len(options.names) > len(expected) and not "".join(expected[-1:]).endswith("..."):
        word = options.names[-1]
        is_data = form == RECIPE and Path(word).exists()
        raise SettingsError(f"{word}: one word too many; usage: {usage}" + f"; did you mean --data {word}?" * is_data)
    return options


def _require_no_mistyped_option(words: Sequence[str], known: Iterable[str]) -> None:
    """Raises SettingsError for a word that is no setting and nearer to an option than to any setting."""
    from sprintnet.config import Config

    settings, options = folder.dotted(asdict(Config())), tuple(known)
    for word in (word.partition("=")[0] for word in words if word.startswith("--")):
        if word[2:] not in settings and (meant := nearest(word, [*options, *settings])) in options:
            raise SettingsError(f"{word}: there is no such option; did you mean {meant}?")


def _parse_without_verb(arguments: Sequence[str]) -> None:
    """Prints the help or the version, where they are asked for, and exits."""
    parser = _Parser("sprintnet", usage="sprintnet VERB ...", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = "Train, explain, prove and ship small-image classifiers."
    parser.epilog = _overview()
    parser.add_argument("--version", action="version", version=f"sprintnet {__version__}")
    parser.parse_known_args(arguments)


def _overview() -> str:
    """Returns the first steps, and the verbs in groups."""
    width = max(map(len, FIRST_STEPS))
    lines = [styled("First steps", BOLD, sys.stdout)]
    lines += [f"  sprintnet {command:{width}}  {purpose}" for command, purpose in FIRST_STEPS.items()]
    for group, names in GROUPS.items():
        lines += ["", styled(group, BOLD, sys.stdout), *(f"  {name:14}{docstring(VERBS[name][0])}" for name in names)]
    return "\n".join([*lines, "", "sprintnet VERB --help   the options of a verb"])


def _fail(message: str, exit_code: int) -> int:
    """Prints a message, in which names given by users are made printable, and returns the exit code.

    Of several processes the first alone speaks of settings and interruptions, which all have.
    """
    if own_rank() and exit_code in SAID_BY_THE_FIRST and not message.startswith("rank "):
        return exit_code
    shown = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in message)
    print(f"{styled('sprintnet:', RED, sys.stderr)} {shown}", file=sys.stderr)
    return exit_code
