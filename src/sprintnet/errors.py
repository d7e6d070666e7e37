"""Errors that a user can cause, each with the exit code that the README documents."""


class SprintNetError(Exception):
    """The base of all errors: one message with the argument, the value, the rule and the remedy."""

    exit_code = 1


class SettingsError(SprintNetError):
    """Invalid settings or arguments, or a run folder that cannot be used; nothing was started."""

    exit_code = 2


class ArgumentError(SettingsError):
    """An argument that breaks a rule: named as in Python by the message, as a flag by `flag_message`."""

    def __init__(self, argument: str, value: object, rule: str):
        super().__init__(f"{argument}={value!r}: {rule}")
        self.flag_message = f"--{argument.replace('_', '-')} {value}: {rule}"


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
    """An exported file that does not answer as the trained network; it is not left behind."""

    exit_code = 5
