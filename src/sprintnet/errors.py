"""Errors that a user can cause, each with the exit code that the README documents."""


class SprintNetError(Exception):
    """The base of all errors: one message with the argument, the value, the rule and the remedy."""

    exit_code = 1


class SettingsError(SprintNetError):
    """Invalid settings or arguments, or a run folder that cannot be used; nothing was started."""

    exit_code = 2


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
