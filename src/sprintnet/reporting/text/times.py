"""Measured times as text, with three significant digits."""


def seconds_text(seconds: float) -> str:
    """Returns seconds as text, such as `0.912 s`, `45.8 s` or `1,698 s`."""
    decimals = 0 if seconds >= 100 else 1 if seconds >= 10 else 2 if seconds >= 1 else 3
    return f"{seconds:,.{decimals}f} s"
