"""The mistakes a user can cause, each with the exit code that the README documents."""


class SprintNetError(Exception):
    """A user's mistake or an outside failure: one message with the argument, the value, the rule and the remedy."""

    exit_code = 1


class SettingsError(SprintNetError):
    """Settings, arguments or a run folder that cannot be used as asked; nothing was started."""

    exit_code = 2


class DataError(SprintNetError):
    """A data set that cannot be obtained, verified or read."""

    exit_code = 3


class AccessError(DataError):
    """Data that could not be reached this time, for want of rights, memory or a drive: the next attempt may succeed."""


class DivergedError(SprintNetError):
    """A loss that is no longer finite; the last good checkpoint is kept."""

    exit_code = 4


class Interrupted(SprintNetError):
    """SIGINT or SIGTERM arrived; the state was saved first."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class ParityError(SprintNetError):
    """An exported file that does not answer as the trained network; it is not left behind."""

    exit_code = 5
