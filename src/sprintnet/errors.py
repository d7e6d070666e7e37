"""Errors that a user can cause, each with its exit code (docs/reference/exit_codes.md); suggestions for mistyped names."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher

MIN_SIMILARITY = 0.7  # below this, a known name is too far from what was typed to be suggested
EXTRAS = {  # the modules that each extra of the package installs
    "train": ("torch", "safetensors", "matplotlib", "jinja2"),
    "study": ("scipy",),
    "track": ("tensorboardX",),
    "export": ("onnx", "onnxscript"),
    "predict": ("onnxruntime",),
    "serve": ("python_multipart", "starlette", "uvicorn"),
    "datasets": ("datasets", "pyarrow"),
    "labels": ("cleanlab",),
    "ray": ("ray",),
    "tune": ("optuna",),
}
INSTALL = 'pip install -c constraints.txt ".[{}]"'  # the package is on no index


class SprintNetError(Exception):
    """The base of all errors: one message with the argument, the value, the rule and the remedy."""

    exit_code = 1


class SettingsError(SprintNetError):
    """Invalid settings or arguments, or a run folder that cannot be used; nothing was started."""

    exit_code = 2


class MissingPackageError(SettingsError, ImportError):
    """A package that an extra installs is missing."""


class ArgumentError(SettingsError):
    """An argument that breaks a rule: named as in Python by the message, as a flag by `flag_message`."""

    def __init__(self, argument: str, value: object, rule: str):
        super().__init__(f"{argument}={value!r}: {rule}")
        self.flag_message = f"--{argument.replace('_', '-')}{'' if value is True else f' {value}'}: {rule}"


class DataError(SprintNetError):
    """A dataset that cannot be obtained, verified or read."""

    exit_code = 3


class AccessError(DataError):
    """Data that could not be read this time (permissions, memory, a network drive): the next attempt may succeed."""


class DivergedError(SprintNetError):
    """The loss is no longer finite; the last good checkpoint is kept."""

    exit_code = 4


class Interrupted(SprintNetError):
    """Training was interrupted by SIGINT or SIGTERM; its state was saved first."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class ParityError(SprintNetError):
    """An exported file whose predictions differ from the network's; the export is discarded."""

    exit_code = 5


class VerificationError(SprintNetError):
    """A run whose files, figures, export or repeated training differ from what its folder says."""

    exit_code = 5


def error_of(exit_code: int, message: str) -> SprintNetError:
    """Returns the error of another process: its message, with its exit code."""
    error = SprintNetError(message)
    error.exit_code = exit_code
    return error


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether memory, or a thread's stack, could not be had: PyTorch raises RuntimeErrors for it on a CPU."""
    signs = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "start new thread")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs))


def missing_extra(error: ModuleNotFoundError) -> str:
    """Returns what to install for a module that an extra of the package installs, as the end of a message; empty for others."""
    extra = next((extra for extra, modules in EXTRAS.items() if error.name in modules), "")
    return extra and f"needs {error.name}; in a clone of the repository: {INSTALL.format(extra)}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Returns the known name that was probably meant: a few letters differ, or their order; None where none is near."""
    typed = re.sub(r"[\W_]", "", word.lower())

    def similarity(name: str) -> tuple[float, bool]:
        other = re.sub(r"[\W_]", "", name.lower())
        return SequenceMatcher(None, typed, other).ratio(), sorted(typed) == sorted(other)

    best = max(known, key=similarity, default=None)
    return best if best is not None and (similarity(best) >= (MIN_SIMILARITY,) or similarity(best)[1]) else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns the end of a message about a mistyped name: a suggestion, or nothing."""
    found = nearest(word, known)
    return f"; did you mean {found}?" if found else ""


@contextmanager
def python_arguments(names: Sequence[str], data_prefix: str = "data__", data_name: str = "data") -> Iterator[None]:
    """Makes messages of the block name settings as Python arguments: optim__max_lr=0.4 instead of optim.max_lr=0.4.

    `names` are the dotted names of the settings; those of `data` get the prefix, and data.name is called `data_name`.
    """
    command_or_name = re.compile(rf"sprintnet [a-z][^;\n]*|\b(?:{'|'.join(map(re.escape, names))})\b|\b\w+\.\w+(?==)")

    def in_python(found: re.Match[str]) -> str:
        if found[0].startswith("sprintnet "):
            return found[0]
        if found[0] == "data.name":
            return data_name
        return re.sub("^data__", data_prefix, found[0].replace(".", "__"))

    try:
        yield
    except SprintNetError as error:
        message = command_or_name.sub(in_python, str(error)).replace("=true", "=True").replace("=false", "=False")
        error.args = (message, *error.args[1:])
        raise
    except ModuleNotFoundError as error:
        if not (needs := missing_extra(error)):
            raise
        raise MissingPackageError(f"sprintnet {needs}") from None
