"""Names that users gave (classes, files, folders), as they are shown: on one line, nothing in them acts."""

UNLABELLED = "no label"
"""What stands for an answer, or a truth, of no label at all."""


def plain(name: str) -> str:
    """Returns a name on one line, of printable characters; bytes that are no text are written out as \\xNN."""
    return "".join(map(_shown, " ".join(name.split())))


def short(name: str, longest: int) -> str:
    """Returns a name as `plain` does, cut to so many characters."""
    shown = plain(name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    byte = ord(letter) - 0xDC00  # a byte of a file's name that is no text, as Python reads it
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else "\ufffd"
