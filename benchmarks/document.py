"""Generated tables in documents, between two marks."""

from pathlib import Path


def write_between(document: Path, mark: str, table: str) -> None:
    """Replaces the text between `<!-- mark -->` and `<!-- end of mark -->`."""
    text = document.read_text("utf-8")
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, rest = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    document.write_text(f"{before}\n{table}\n{rest}", "utf-8")
