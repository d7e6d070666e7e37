"""Names that users gave (classes, files, folders), as they are shown: on one line, nothing in them acts."""


def plain(name: str) -> str:
    """Returns a name on one line, of printable characters; bytes that are no text are written out as \\xNN."""
    known = name.encode("utf-8", "backslashreplace").decode()  # a file name need not be text
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(known.split()))


def short(name: str, longest: int) -> str:
    """Returns a name as `plain` does, cut to so many characters."""
    shown = plain(name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
