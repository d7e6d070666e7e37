"""Custom datasets: a folder or table becomes images, and all problems come in one message."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import SAMPLE
from small_folders import message, read, write
from sprintnet.data.builtin.cache import load
from sprintnet.data.builtin.cifar import CIFAR10_CLASSES
from sprintnet.data.custom.folders import read_folder
from sprintnet.data.splits import write_splits

pytestmark = pytest.mark.usefixtures("cache")


def test_the_sample_is_real_cifar10() -> None:
    found = read(SAMPLE)
    assert [found.split.count(name) for name in ("train", "val", "test", "")] == [200, 0, 100, 0]
    assert found.images.classes == CIFAR10_CLASSES
    assert found.images.image_shape == (32, 32, 3)
    assert np.bincount(found.images.labels).tolist() == [30] * 10
    assert found.notes == ()


@pytest.mark.cifar10
def test_every_image_of_the_sample_is_in_cifar10() -> None:
    sample = read(SAMPLE)
    known = {image.tobytes(): label for part in load("cifar10") for image, label in zip(part.images, part.labels, strict=True)}
    assert [known[image.tobytes()] for image in sample.images.images] == sample.images.labels.tolist()


def test_images_come_in_order_of_split_class_and_name(folder: Path) -> None:
    found = read(folder)
    assert found.images.classes == ("cat", "dog")
    assert found.images.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12] * 2
    assert found.split == ("train",) * 6 + ("test",) * 6


def test_a_folder_of_classes_has_no_splits_yet(folder: Path) -> None:
    found = read(folder / "train")
    assert (found.split, found.images.labels.tolist()) == (("",) * 6, [0, 0, 0, 1, 1, 1])
    assert found.images.files is not None
    assert found.images.files[3] == str(folder / "train" / "dog" / "0.png")


def test_a_table_says_label_split_and_group(folder: Path) -> None:
    rows = ["path,label,split,group", "train/cat/0.png,cat,train,a", "train/dog/0.png,dog,,a", "test/cat/1.png,cat,test,"]
    (folder / "table.csv").write_text("\n".join(rows))
    found = read(folder / "table.csv")
    assert found.images.images[:, 0, 0, 0].tolist() == [0, 10, 1]
    assert found.images.labels.tolist() == [0, 1, 0]
    assert found.split == ("train", "", "test")
    assert found.images.groups == ("a", "a", "")
    (folder / "several.csv").write_text("path,label\ntrain/cat/0.png,cat|pet\ntrain/dog/0.png,dog")
    found = read(folder / "several.csv")
    assert found.images.classes == ("cat", "dog", "pet")
    assert found.images.labels.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_problems_of_a_table_name_the_row(folder: Path) -> None:
    table = folder / "t.csv"
    rows = [
        "train/cat/0.png,cat,",
        "gone.png,cat,",
        "train/dog/0.png,,",
        "train/dog/1.png,dog,later",
        "train/dog/2.png,dog,test",
    ]
    table.write_text("\n".join(["path,label,split", *rows, rows[0]]))
    said = message(table)
    assert "5 problems" in said
    assert f"{folder / 'gone.png'}: No such file or directory ({table}, row 2)" in said
    assert f"{table}, row 3: has no label" in said
    assert f"{table}, row 4: has split later; use one of train, val, test" in said
    assert f"{folder / 'train' / 'cat' / '0.png'}: is in rows 1 and 6 of {table}; keep one" in said
    assert "dog: has no training image" in said
    table.write_text("path,label\ntrain/cat/0.png,cat\ntrain/dog/0.png,dog\ntrain/cat/0.png,dog\n")
    assert f"is in rows 1 and 3 of {table}, as cat and as dog; keep one" in message(table, skip_bad=True)
    table.write_text("picture,kind\na.png,b")
    assert "has the columns picture, kind, none for path and label; the first row must name path and label" in message(table)


def test_images_of_several_sizes_are_resized_with_a_note(folder: Path) -> None:
    write(folder / "train" / "cat" / "0.png", (200, 100), 9)
    found = read(folder)
    assert found.images.image_shape == (64, 64, 3)
    assert found.notes == (
        "images of 2 sizes (width 8 to 200, height 8 to 100) are resized to 64x64 (stretch; see data.size, data.resize; "
        "the recipe photos takes 224x224, cropped)",
    )
    cropped = read(folder, size=16, resize="letterbox").images.images[0]
    assert cropped.shape == (16, 16, 3)
    assert cropped[:4].max() == cropped[12:].max() == 0  # twice as wide as high: a quarter above and below is black
    assert (cropped[4:12] == (9, 0, 255)).all()


def test_grey_images_stay_grey_unless_channels_says_otherwise(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "0.png", colour=7, mode="L")
    assert read(tmp_path).images.images.shape == (2, 8, 8, 1)
    assert read(tmp_path, channels="rgb").images.images[0, 0, 0].tolist() == [7, 7, 7]
    assert read(tmp_path, channels="rgba").images.images[0, 0, 0].tolist() == [7, 7, 7, 255]
    write(tmp_path / "b" / "1.png", colour=7)
    assert read(tmp_path).images.image_shape == (8, 8, 3)


def test_everything_that_a_real_folder_contains(folder: Path) -> None:
    cat, dog = folder / "train" / "cat", folder / "train" / "dog"
    for clutter in (cat / ".DS_Store", cat / "Thumbs.db", folder / ".hidden"):
        clutter.touch()
    (cat / "0.png").rename(cat / "0.PNG")
    write(Path(os.fsdecode(os.fsencode(cat) + b"/caf\xe9.png")), colour=3)
    write(cat / ("n" * 250 + ".png"), colour=4)
    (dog / "link.png").symlink_to(cat / "1.png")
    found = read(folder)
    assert len(found.images) == 15
    assert found.images.files is not None
    assert any(file.endswith("caf\\xe9.png") for file in found.images.files)
    bad = {
        "zero.png": b"",
        "truncated.png": (dog / "1.png").read_bytes()[:-30],
        "text.jpg": b"no image",
        "bomb.png": (dog / "1.png").read_bytes().replace((8).to_bytes(4) * 2, (30_000).to_bytes(4) * 2),
    }
    for name, content in bad.items():
        (dog / name).write_bytes(content)
    (dog / "loop.png").symlink_to(dog / "loop.png")
    (dog / "gone.png").symlink_to(dog / "nowhere.png")
    (dog / "notes.txt").touch()
    (dog / "more").mkdir()
    os.mkfifo(dog / "pipe.png")
    (folder / "train" / "readme.md").touch()
    said = message(folder)
    for name in (*bad, "loop.png", "gone.png", "more", "pipe.png"):
        assert f"{dog / name}: " in said
    assert "8 problems; nothing was started" in said
    assert "fix these files, or leave them out: data.skip_bad=true" in said
    found = read(folder, skip_bad=True)
    assert len(found.images) == len(found.split) == len(found.images.files or ()) == 15
    assert found.notes == (
        "left out (data.skip_bad): 8",
        "files ignored since they are no images: 2 (sprintnet check lists them)",
        "hidden, system and output files ignored: 3",
    )
    assert found.images.images.sum(axis=(1, 2, 3)).min() > 0  # none is the black that stands for what cannot be read


def test_errors_stop_even_with_skip_bad(folder: Path, tmp_path: Path) -> None:
    write(folder / "test" / "fox" / "0.png")
    assert "fox: has no training image" in message(folder, skip_bad=True)
    (folder / "test" / "fox" / "0.png").unlink()
    assert "contains no image; add some, or remove it" in message(folder)
    assert read(folder, skip_bad=True).images.classes == ("cat", "dog")
    assert "has no class folders" in message(folder / "train" / "cat", skip_bad=True)
    assert f"{folder / 'one'}: contains 1 class; at least 2 are needed" in message(
        write(folder / "one" / "a" / "0.png").parents[1], skip_bad=True
    )
    write(folder / "train" / "a|b" / "0.png")
    expected = f"{folder / 'train' / 'a|b'}: contains |, which separates labels; rename it"
    assert expected in message(folder, skip_bad=True)
    (folder / "train").rename(folder / "val")
    assert "has val/ but no train/" in message(folder, skip_bad=True)
    (tmp_path / "none" / "a").mkdir(parents=True)
    assert "contains no image of a class that can be opened" in message(tmp_path / "none", skip_bad=True)
    assert "no built-in dataset (cifar10" in message(tmp_path / "nowhere")
    assert "must be a folder or a file .csv" in message(folder / "test" / "cat" / "0.png")


def test_a_wrong_suffix_is_read_by_content_and_noted(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "train" / "cat" / "really.png", format="JPEG")
    problem = next(problem for problem in read(folder).problems if problem.kind != "one colour")
    assert (problem.kind, problem.severity) == ("wrong suffix", "note")
    assert "contains a JPEG, and is read as one; rename it to .jpeg" in problem.text


def test_the_most_severe_problem_comes_first(folder: Path) -> None:
    for index in range(30):
        (folder / "train" / "cat" / f"{index:02}.heic").touch()
    write(folder / "test" / "fox" / "0.png")
    lines = message(folder).splitlines()
    assert "31 problems" in lines[0]
    assert "fox: has no training image" in lines[1]
    assert lines[-1] == f"  and 11 more: sprintnet check {folder}"


def test_split_folders_have_aliases_and_folders_beside_them_are_problems(folder: Path) -> None:
    (folder / "test").rename(folder / "valid")
    assert read(folder).split == ("train",) * 6 + ("val",) * 6
    write(folder / "more" / "cat" / "0.png")
    (folder / "labels.csv").touch()
    said = message(folder)
    assert f"{folder / 'more'}: is beside train/" in said
    assert "labels.csv" not in said
    shutil.rmtree(folder / "more")
    assert read(folder).notes == ("files ignored since they are no images: 1 (sprintnet check lists them)",)


def test_a_photograph_with_a_second_frame_is_a_jpeg(folder: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "train" / "cat" / "two.jpg", format="MPO", save_all=True, append_images=frames[1:])
    found = read(folder)
    assert [problem.kind for problem in found.problems] == ["one colour"]
    assert found.images.images[3, 0, 0, 0] > 200


def test_a_table_in_another_encoding_has_labels_that_can_be_written(folder: Path, tmp_path: Path) -> None:
    (folder / "t.csv").write_bytes(b"path,label\ntrain/cat/0.png,caf\xe9\ntrain/dog/0.png,dog\n")
    found = read(folder / "t.csv").images
    assert found.classes == ("caf\\xe9", "dog")
    write_splits(tmp_path / "splits.csv", {"train": found})


def test_files_without_permission_are_named(unprivileged_folder: Path) -> None:
    train = unprivileged_folder / "train"
    for name in ("cat", "dog", "fox"):
        for index in range(3):
            write(train / name / f"{index}.png", colour=index)
    (train / "cat" / "1.png").chmod(0)
    (train / "fox").chmod(0)
    said = message(unprivileged_folder)
    assert "2 problems" in said
    assert f"{train / 'fox'}: Permission denied; make it readable, or remove it" in said
    assert f"{train / 'cat' / '1.png'}: cannot be read: Permission denied; make it readable" in said
    assert len(read(unprivileged_folder, skip_bad=True).images) == 5
    unprivileged_folder.chmod(0)
    assert message(unprivileged_folder) == f"data.name={unprivileged_folder}: Permission denied; make it readable"
    unprivileged_folder.chmod(0o700)
    (train / "cat" / "1.png").chmod(0o600)
    assert len(read(unprivileged_folder, skip_bad=True).images) == 6  # no failure is kept that may pass
    (train / "fox").chmod(0o700)
    assert len(read(unprivileged_folder).images) == 9


def test_a_hundred_thousand_files_in_one_folder(folder: Path) -> None:
    for index in range(100_000):
        os.link(folder / "train" / "cat" / f"{index % 3}.png", folder / "train" / "cat" / f"same{index:06}.png")
    listing = read_folder(folder)
    assert len(listing.entries) == 100_012
    assert listing.problems == ()
    shutil.rmtree(folder)
    assert [entry.path[-10:] for entry in listing.entries[:4]] == ["/cat/0.png", "/cat/1.png", "/cat/2.png", "000000.png"]


def test_undecodable_images_do_not_determine_the_size(folder: Path) -> None:
    large = write(folder / "train" / "dog" / "broken.png", (200, 100))
    large.write_bytes(large.read_bytes()[:-30])
    found = read(folder, skip_bad=True)
    assert found.images.image_shape == (8, 8, 3)
    assert found.notes == ("left out (data.skip_bad): 1",)
    assert found.images.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12] * 2


def test_ignored_files_are_counted(folder: Path) -> None:
    for clutter in (folder / ".git", folder / "train" / "cat" / ".DS_Store", folder / "test" / "dog" / "Thumbs.db"):
        clutter.touch()
    assert read(folder).notes == ("hidden, system and output files ignored: 3",)


def test_split_names_ignore_case(folder: Path) -> None:
    (folder / "train").rename(folder / "Train")
    (folder / "test").rename(folder / "Validation")
    assert read(folder).split == ("train",) * 6 + ("val",) * 6
    rows = ["path,label,split", "Train/cat/0.png,cat,Train", "Train/dog/0.png,dog,valid", "Train/dog/1.png,dog,"]
    (folder / "t.csv").write_text("\n".join(rows))
    assert read(folder / "t.csv").split == ("train", "val", "")


def test_spaces_around_labels_are_ignored(folder: Path) -> None:
    (folder / "t.csv").write_text("path,label\ntrain/cat/0.png,cat | dog |\ntrain/dog/0.png,dog\n")
    assert read(folder / "t.csv").images.classes == ("cat", "dog")


def test_a_row_that_names_no_image_is_a_problem(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "t.csv").write_text("path,label\ntrain/cat/0.png,cat\ntrain/dog/0.png,dog\npipe.png,cat\ntrain,dog\n")
    said = message(folder / "t.csv")
    for name, row in (("pipe.png", 3), ("train", 4)):
        assert f"{folder / name}: is a folder, pipe or device ({folder / 't.csv'}, row {row}); name an image" in said
    assert "no such user; write the full path" in message(Path("~nobody by this name/data"))


def test_a_class_may_be_named_as_a_split(folder: Path) -> None:
    (folder / "test").rename(folder.parent / "elsewhere")
    for name in ("train", "val", "Test"):
        write(folder / "train" / name / "0.png", colour=99)
    found = read(folder / "train")
    assert found.images.classes == ("Test", "cat", "dog", "train", "val")
    assert set(found.split) == {""}
    notes = [f"{name}/ is read as a class, not as a split: it is beside other classes" for name in ("Test", "train", "val")]
    assert found.notes == tuple(notes)
    assert set(read(folder).split) == {"train"}  # and within a split, too


def test_splits_may_be_called_training_testing_and_dev(folder: Path) -> None:
    (folder / "train").rename(folder / "Training")
    (folder / "test").rename(folder / "Testing")
    assert read(folder).split == ("train",) * 6 + ("test",) * 6
    (folder / "Testing").rename(folder / "dev")
    assert read(folder).split == ("train",) * 6 + ("val",) * 6


def test_a_text_file_among_the_images_is_a_note(folder: Path) -> None:
    (folder / "train" / "cat" / "readme.txt").touch()
    (folder / "train" / "cat" / "scan.heic").touch()
    (folder / "train" / "cat" / "scan").touch()
    said = message(folder)
    assert "2 problems; nothing was started" in said
    assert "scan.heic: is none of PNG, JPEG" in said
    for name in ("scan.heic", "scan"):
        (folder / "train" / "cat" / name).unlink()
    assert [(problem.kind, problem.severity) for problem in read(folder).problems] == [("other file", "note")]


def test_jpegs_have_many_suffixes_and_other_images_are_named(folder: Path) -> None:
    for number, suffix in enumerate((".jfif", ".jpe", ".JPG", ".jif", ".pjpeg")):
        file = write(folder / "train" / "cat" / f"{number}.jpg", colour=100 + number)
        file.rename(folder / "train" / "cat" / f"x{number}{suffix}")
    assert len(read(folder).images) == 12 + 5
    for name in ("x.heic", "y.psd", "z.ico"):
        (folder / "train" / "cat" / name).write_bytes(b"8BPS")
    said = message(folder)
    for name in ("x.heic", "y.psd", "z.ico"):
        assert re.search(rf"{name}: is none of PNG, JPEG, WEBP, BMP, GIF, TIFF.*; convert or remove it", said)
    (folder / "train" / "cat" / "y.psd").rename(folder / "train" / "cat" / "really.jpg")
    assert "it is a PSD file; convert it" in message(folder)


def test_what_photo_tools_and_our_own_commands_leave_behind_is_passed_over(folder: Path) -> None:
    for name in (
        "@eaDir/0.png",
        "#recycle/1.png",
        "$RECYCLE.BIN/2.png",
        "runs/train/smoke/.lock",
        "runs/study/S/seed-0/config.toml",
        ".hidden/3.png",
        "._0.png",
    ):
        place = folder / "train" / "cat" / name if "runs" not in name else folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    assert len(read(folder).images) == 12


def test_a_class_may_be_called_runs(folder: Path) -> None:
    (folder / "train" / "dog").rename(folder / "train" / "runs")
    (folder / "test" / "dog").rename(folder / "test" / "runs")
    assert read(folder).images.classes == ("cat", "runs")


def test_an_outer_folder_and_an_archive_get_a_hint(folder: Path, tmp_path: Path) -> None:
    outer = tmp_path / "archive" / "flower_photos"
    outer.parent.mkdir()
    (folder / "train").rename(outer)
    assert f"did you mean {outer}?" in message(outer.parent)
    inner = tmp_path / "wrapped" / "flowers"
    for name in ("train", "test"):
        write(inner / name / "cat" / "0.png")
    assert f"did you mean {inner}?" in message(inner.parent)
    (tmp_path / "flowers.zip").write_bytes(b"PK")
    assert "is an archive; unpack it" in message(tmp_path / "flowers.zip")


def test_a_test_folder_without_classes_is_named_once(folder: Path) -> None:
    for file in list((folder / "test").rglob("*.png")):
        file.rename(folder / "test" / f"{file.parent.name}{file.name}")
    for name in ("cat", "dog"):
        (folder / "test" / name).rmdir()
    said = message(folder)
    assert "test: has no class folders, so its images have no label" in said
    assert said.startswith(f"data.name={folder}: 1 problem")
    assert len(read(folder, skip_bad=True).images) == 6


def test_a_folder_of_one_class_is_one_problem_with_the_folder_above_it(folder: Path) -> None:
    said = message(folder / "train" / "cat")
    assert ".png" not in said  # not a problem for each image
    assert "has no class folders; sort its images into <class>/, or name the folder above if it is itself a class" in said
    assert "contains no image" not in said


def test_images_of_one_colour_are_noted_and_refused_where_all_are_equal(folder: Path) -> None:
    for number, file in enumerate(sorted(folder.rglob("*.png"))[:3]):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
    assert "images of one colour throughout: 3 (sprintnet check lists them)" in read(folder).notes
    for file in folder.rglob("*.png"):
        Image.new("RGB", (8, 8), (7, 0, 255)).save(file)
    assert "all of its images show nothing but one colour (7, 0, 255 of 255); save them again" in message(folder)


def test_a_folder_whose_images_all_fail_says_why(folder: Path) -> None:
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 4 + number).save(file)
    said = message(folder)
    assert "contains no image of a class that can be opened" in said
    assert "16-bit values from 0 to 252 of 65535 are nearly black; save it with 8 bits, or scale its values" in said


def test_folders_that_tables_could_not_name_are_refused(folder: Path, tmp_path: Path) -> None:
    for name, said in (
        ("cat ", "is the same class as 'cat' beside it"),
        ("-1", "use for images without a label"),
        ("nan", "rename it"),
    ):
        write(folder / "train" / name / "0.png", colour=50)
        assert said in message(folder, skip_bad=True)
        (folder / "train" / name / "0.png").unlink()
        (folder / "train" / name).rmdir()
    write(folder / "train" / "Cat" / "0.png", colour=50)
    assert any(problem.text == "differ little: Cat, cat; are they one class?" for problem in read(folder).problems)
    (folder / "Train").mkdir()
    (folder / "train" / "Cat").rename(folder / "Train" / "fox")
    assert "Train/, train/ are read as one split, train" in read(folder).notes


def test_files_without_a_suffix_or_content_are_named(folder: Path) -> None:
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "photo")
    (folder / "train" / "cat" / "1.png").write_bytes(b"")
    said = message(folder)
    assert "photo: has no suffix; rename it, such as to photo.png, or remove it" in said
    assert "1.png: is empty; restore or remove it" in said


def test_splits_csv_gives_the_same_classes_again(folder: Path, tmp_path: Path) -> None:
    for name, other in (("1.0", "2.0"), ("0.5", "1.5"), ("Cat", "cat "), ("caf\u00e9", "dog")):
        for part in ("train", "test"):
            for old, new in zip(sorted((folder / part).iterdir()), (name, other), strict=True):
                old.rename(folder / part / new)
        found = read(folder)
        write_splits(tmp_path / "splits.csv", {"train": found.images})
        again = read(tmp_path / "splits.csv").images.classes
        assert set(again) == set(found.images.classes) == {name, other.strip()}
