"""Colour on terminals that have it and whose user wants it: https://no-color.org."""

import os
from typing import TextIO

BOLD, RED = "1", "31"


def styled(text: str, style: str, stream: TextIO) -> str:
    """Returns the text in bold or in a colour where the stream is a terminal, unless NO_COLOR is set or TERM is `dumb`."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if is_plain else f"\033[{style}m{text}\033[0m"
