"""Tables as spreadsheets, pandas and Windows write them."""

from pathlib import Path

import numpy as np
import pytest

from small_folders import message, read, write
from sprintnet.data.custom.conventions import find_columns
from sprintnet.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")
ROWS = [(f"pics/{name}/{number}.png", name) for name in ("cat", "dog") for number in range(4)]


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path) -> None:
    """Eight images in pics/."""
    for number, (path, _) in enumerate(ROWS):
        write(tmp_path / path, colour=number)


def table(separator: str = ",", head: tuple[str, str] = ("path", "label"), end: str = "\r\n") -> str:
    return end.join([separator.join(head), *(separator.join(row) for row in ROWS)]) + end


READ = {
    "semicolons and a mark": table(";").encode("utf-8-sig"),
    "tabs": table("\t").encode(),
    "bars": table("|").encode(),
    "UTF-16": table("\t").encode("utf-16"),
    "spaces after commas": table(", ").encode(),
    "capitals": table(head=("Path", "LABEL")).encode(),
    "other names": table(head=("filename", "class")).encode(),
    "names with a dash": table(head=("image-path", "class_name")).encode(),
    "Excel's first line": ("sep=;\r\n" + table(";")).encode(),
    "backslashes": table().replace("pics/cat/", "pics\\cat\\").replace("pics/dog/", "pics\\dog\\").encode(),
    "spaces around the path": table().replace(".png,", ".png ,").encode(),
    "the index of pandas": ("," + table()).replace("\r\npics", "\r\n7,pics").encode(),
    "separators at the end": table(",").replace("\r\n", ",,\r\n").replace("label,,", "label").encode(),
    "blank lines first": ("\r\n\r\n" + table()).encode(),
    "old Macintosh": table(end="\r").encode(),
}


@pytest.mark.parametrize("kind", READ)
def test_a_table_is_read_however_it_was_written(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.csv").write_bytes(READ[kind])
    found = read(tmp_path / "a.csv").images
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0] * 4 + [1] * 4
    assert found.images[:, 0, 0, 0].tolist() == list(range(8))


REFUSED = {
    "no header": ("\n".join(",".join(row) for row in ROWS), "has the columns pics/cat/0.png, cat, none for path and label"),
    "header alone": ("path,label\n", "has a header but no rows"),
    "empty": ("", "is empty; the first row must name path and label"),
    "two labels": (
        "path,class,category\nx,a,b\n",
        "the columns class, category could each be the label; call one of them label",
    ),
    "more cells than columns": (
        table(end="\n").replace("0.png,cat", "0.png,black, white"),
        "row 1: has more cells than the header (white)",
    ),
    "one image twice": (table(end="\n") + "./pics/cat/0.png,dog\n", "is in rows 1 and 9 of"),
    "open quote": ('path,label\n"pics/cat/0.png,cat\n', "cannot be read as CSV"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_meant_is_named(tmp_path: Path, kind: str) -> None:
    text, said = REFUSED[kind]
    (tmp_path / "a.csv").write_text(text)
    assert said in message(tmp_path / "a.csv")


@pytest.mark.parametrize("mark", ["-1", "nan", "NaN", "<NA>", "-1.0"])
def test_marks_of_missing_labels_are_no_classes(tmp_path: Path, mark: str) -> None:
    (tmp_path / "a.csv").write_text(table().replace("3.png,cat", f"3.png,{mark}"))
    assert f"row 4: has no label ({mark})" in message(tmp_path / "a.csv")
    found = read(tmp_path / "a.csv", skip_bad=True).images
    assert found.classes == ("cat", "dog")
    assert len(found) == 7


def test_a_column_that_is_called_label_wins_and_the_others_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("class,label,path,size\n" + "".join(f"x,{name},{path},3\n" for path, name in ROWS))
    found = read(tmp_path / "a.csv")
    assert found.images.classes == ("cat", "dog")
    assert "columns that are not read: class, size" in found.notes
    with pytest.raises(DataError, match="none for label"):
        find_columns("a.csv", ["path"])


def test_names_that_look_the_same_are_the_same_class(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in ROWS[:4]), "utf-8")
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    rows = [(path, composed if number % 2 else decomposed) for number, (path, _) in enumerate(ROWS[:4])] + ROWS[4:]
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in rows), "utf-8")
    found = read(tmp_path / "a.csv").images
    assert found.classes == (composed, "dog")
    np.testing.assert_array_equal(found.labels, [0] * 4 + [1] * 4)


@pytest.mark.parametrize("names", [("0", "1.0"), ("1.0", "2.0"), ("0.5", "1.5"), ("01", "1"), ("1", "1.0")])
def test_labels_stay_as_written_and_similar_ones_are_noted(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(f"{path},{names[name == 'dog']}\n" for path, name in ROWS))
    found = read(tmp_path / "a.csv")
    assert found.images.classes == names
    similar = [problem.text for problem in found.problems if problem.kind == "similar class names"]
    note = f"differ little: {', '.join(names)}; are they one class?"
    assert similar == ([note] if float(names[0]) == float(names[1]) else [])


def test_values_to_predict_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(f"{path},0.{number}5\n" for number, (path, _) in enumerate(ROWS)))
    assert "labels are fractions, such as 0.05; classes are names or whole numbers" in message(tmp_path / "a.csv")


def parquet(path: Path, labels: list[object], paths: list[object] | None = None) -> Path:
    import pyarrow
    from pyarrow import parquet as format

    format.write_table(pyarrow.table({"path": paths or [row[0] for row in ROWS], "label": labels}), path)
    return path


def test_parquet_cells_of_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    assert read(parquet(file, [name.encode() for _, name in ROWS])).images.classes == ("cat", "dog")
    several = read(parquet(file, [["cat", "dog"], [], ["cat"], ["dog"]] * 2)).images
    assert several.multi_label
    assert several.labels.tolist() == [[1, 1], [0, 0], [1, 0], [0, 1]] * 2
    assert "contains lists of 0 and 1" in message(parquet(file, [[1, 0], [0, 1]] * 4))
    assert "row 1: has no label" in message(parquet(file, [["cat", None], *(["dog"], ["cat"]) * 3, ["dog"]]))
    images = [{"bytes": b"\x89PNG\xff", "path": None}] * 8
    assert "column path contains images, not their paths" in message(parquet(file, ["cat", "dog"] * 4, images))
    assert "column path contains images, not their paths" in message(parquet(file, ["cat", "dog"] * 4, [b"\x89PNG\xff"] * 8))
