"""Times as text: measured ones with three significant digits, estimates roughly."""


def seconds_text(seconds: float) -> str:
    """Returns seconds as text, such as `0.912 s`, `45.8 s` or `1,698 s`."""
    decimals = 0 if seconds >= 100 else 1 if seconds >= 10 else 2 if seconds >= 1 else 3
    return f"{seconds:,.{decimals}f} s"


def rough_time(seconds: float) -> str:
    """Returns estimated seconds as text, such as `45 s`, `12 min` or `3.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
