"""Names that users gave (classes, files, folders), made safe to print: one line, printable characters only."""

UNLABELLED = "no label"  # shown for a prediction or truth without any label


def plain(name: str) -> str:
    r"""Returns a name on one line, of printable characters; bytes that are not text are written as \xNN."""
    return "".join(map(_printable, " ".join(name.split())))


def short(name: str, longest: int) -> str:
    """Returns a name as `plain` does, cut to `longest` characters."""
    shown = plain(name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    byte = ord(character) - 0xDC00  # a byte that is not text, as Python reads it from a file name
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else "\ufffd"
