"""Splits: stratified, groups together, no image in two splits, the same when read again."""

import shutil
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from conftest import SAMPLE
from sprintnet.config import load_config
from sprintnet.data.custom.load import load_custom
from sprintnet.data.custom.split import assign_splits
from sprintnet.data.dataset import digest
from sprintnet.data.load import load_splits
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import connected_groups, read_splits, stratified_k_fold, stratified_sample, write_splits
from sprintnet.data.validate import check
from sprintnet.errors import DataError, SettingsError
from sprintnet.runs.folder import RunFolder, read_rows


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.floats(0, 0.5), st.integers(0, 9))
@settings(max_examples=50)
def test_the_fraction_is_that_of_each_class(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = stratified_sample(labels, share, seed=seed)
    assert np.bincount(labels[chosen], minlength=len(counts)).tolist() == [round(share * count) for count in counts]
    assert chosen.tolist() == stratified_sample(labels, share, seed=seed).tolist()


def test_another_seed_samples_other_images() -> None:
    labels = np.repeat(np.arange(2), 50)
    assert stratified_sample(labels, 0.2, seed=1).tolist() != stratified_sample(labels, 0.2, seed=2).tolist()


def test_groups_stay_together_with_fractions_as_exact_as_in_sklearn() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 120, 900)
    labels = (groups % 3 + (generator.random(900) < 0.3)) % 3
    chosen = stratified_sample(labels, 0.2, [str(group) for group in groups])
    assert not set(groups[chosen]) & set(groups[~chosen])

    def missed(mask: np.ndarray) -> float:
        return float(np.abs(np.bincount(labels[mask], minlength=3) - 0.2 * np.bincount(labels)).max())

    theirs = np.zeros(900, bool)
    theirs[next(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups))[1]] = True
    assert missed(chosen) <= max(missed(theirs), 5)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(2, 7), st.integers(0, 9))
@settings(max_examples=50)
def test_folds_are_as_stratified_as_in_sklearn(counts: list[int], folds: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    fold_of = stratified_k_fold(labels, folds, seed=seed)
    assert set(fold_of) <= set(range(folds))
    if max(counts) < folds:  # sklearn refuses
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the classes that are too small
        theirs = [test for _, test in StratifiedKFold(folds).split(labels, labels)]
    for label in range(len(counts)):
        ours = np.bincount(fold_of[labels == label], minlength=folds)
        assert sorted(ours) == sorted((labels[part] == label).sum() for part in theirs)


def test_folds_keep_groups_together_and_depend_on_the_seed() -> None:
    groups = [str(index // 3) for index in range(300)]
    labels = np.arange(300) // 3 % 4
    fold_of = stratified_k_fold(labels, 5, groups)
    assert all(len(set(fold_of[index : index + 3])) == 1 for index in range(0, 300, 3))
    assert np.ptp(np.bincount(fold_of)) <= 12  # a group of each class
    assert stratified_k_fold(labels, 5, seed=1).tolist() != stratified_k_fold(labels, 5, seed=2).tolist()


def test_multi_label_samples_are_stratified() -> None:
    marks = (np.random.default_rng(0).random((500, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(np.uint8)
    chosen = stratified_sample(marks, 0.2)
    assert np.abs(marks[chosen].sum(axis=0) - 0.2 * marks.sum(axis=0)).max() <= 3
    bare = marks.sum(axis=1) == 0
    assert abs(int(bare[chosen].sum()) - 0.2 * bare.sum()) <= 3


def test_pairs_and_groups_are_connected() -> None:
    assert connected_groups(4, None, []) is None
    found = connected_groups(6, ["a", "b", "a", "c", "d", "e"], [(1, 2), (3, 4)])
    assert found is not None
    assert len(set(found)) == 3
    assert found[0] == found[1] == found[2] != found[3] == found[4] != found[5]
    assert connected_groups(3, ["", "", ""], []) is None  # no name, no group


def test_groups_stay_in_one_split_and_are_saved(tmp_path: Path) -> None:
    files = sorted((SAMPLE / "train").rglob("*.png"))
    rows = [f"{file},{file.parent.name},{f'owner {index // 4}' if index % 20 else ''}" for index, file in enumerate(files)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,group", *rows]))
    found = load_splits(
        load_config("davidnet", [f"data.name={tmp_path / 'table.csv'}"]).data, run=RunFolder(tmp_path), test=True
    )
    owners = {name: set(part.groups or ()) - {""} for name, part in found.items()}
    assert all(owners.values())
    assert not (owners["train"] & owners["test"] or owners["train"] & owners["val"] or owners["val"] & owners["test"])
    table = load_splits(load_config("davidnet", [f"data.name={tmp_path / 'splits.csv'}"]).data, test=True)
    assert [part.groups for part in table.values()] == [part.groups for part in found.values()]


def test_many_groups_of_many_classes_need_little_memory() -> None:
    labels = np.arange(100_000) % 2_000
    groups = [str(index // 2) for index in range(100_000)]  # with a count a group and class: 800 MB
    tracemalloc.start()
    chosen = stratified_sample(labels, 0.1, groups)
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()
    assert 0.08 < chosen.mean() < 0.12


def split_files(path: Path, **wanted: object) -> tuple[object, dict[str, list[str]]]:
    settings = DataSettings(str(path), **wanted)  # type: ignore[arg-type]
    said: list[str] = []
    found = assign_splits(load_custom(settings), settings, said.append)
    return said, {name: list(part.files or ()) for name, part in found.items()}


def test_given_splits_are_kept_and_missing_ones_drawn(tmp_path: Path) -> None:
    _, found = split_files(SAMPLE)
    assert {name: len(files) for name, files in found.items()} == {"train": 180, "val": 20, "test": 100}
    assert all("/test/" in file for file in found["test"])
    _, found = split_files(SAMPLE / "train", val=0.25, test=0.1)
    assert {name: len(files) for name, files in found.items()} == {"train": 140, "val": 40, "test": 20}
    assert len({file for files in found.values() for file in files}) == 200


def noisy(path: Path, source: Path, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(source).convert("RGB").save(path, quality=quality)


def test_duplicates_are_drawn_together_or_reported_or_dropped(tmp_path: Path) -> None:
    sources = sorted((SAMPLE / "train").rglob("*.png"))[::4]
    for index, source in enumerate(sources):
        for copy, quality in enumerate((95, 60)):
            noisy(tmp_path / "drawn" / source.parent.name / f"{index}-{copy}.jpg", source, quality)
            if copy == 0 or index % 2 == 0:
                noisy(tmp_path / "given" / ("train", "test")[copy] / source.parent.name / f"{index}.jpg", source, quality)
    _, found = split_files(tmp_path / "drawn", val=0.2, test=0.2)
    assert all(len(files) > 0 for files in found.values())
    stems = {name: {Path(file).stem.split("-")[0] for file in files} for name, files in found.items()}
    assert not (stems["train"] & stems["test"] or stems["train"] & stems["val"] or stems["val"] & stems["test"])
    for source in sorted((SAMPLE / "test" / "truck").iterdir())[:3]:
        shutil.copy(source, tmp_path / "given" / "train" / "truck" / source.name)
    said, found = split_files(tmp_path / "given")
    assert any("train images with duplicates in a later split: " in line for line in said)  # type: ignore[attr-defined]
    before = len(found["train"]) + len(found["val"])
    said, found = split_files(tmp_path / "given", dedupe=True)
    assert before == 53
    assert any(line.endswith("; left out (data.dedupe)") for line in said)  # type: ignore[index]
    assert len(found["test"]) == 25
    assert len(found["train"]) + len(found["val"]) == 28  # the others are in the test set too
    for file in [*(tmp_path / "given" / "train").rglob("*[13579].jpg"), *(tmp_path / "given" / "train").rglob("*.png")]:
        file.unlink()
    with pytest.raises(DataError, match=r"no training image is left of airplane, automobile.*, or leave out data.dedupe"):
        split_files(tmp_path / "given", dedupe=True)


def test_splits_are_saved_and_read_again(tmp_path: Path) -> None:
    config = load_config("davidnet", [f"data.name={SAMPLE / 'train'}"])
    kept = tmp_path / "splits.csv"
    lines: list[str] = []
    first = load_splits(config.data, lines.append, run=RunFolder(kept.parent), test=True)
    assert f"data: {len(first['test'])} test images, which training does not load" in lines
    rows = read_rows(kept)
    assert [row["split"] for row in rows].count("test") == 40
    assert "test" not in load_splits(config.data, run=RunFolder(kept.parent))
    other = load_config("davidnet", [f"data.name={SAMPLE / 'train'}", "data.test=0.5"])
    again = load_splits(other.data, run=RunFolder(kept.parent), test=True)  # the written splits count, not a new draw
    assert digest(*first.values()) == digest(*again.values())
    by_table = load_splits(load_config("davidnet", [f"data.name={kept}"]).data, test=True)
    assert digest(*by_table.values()) == digest(*first.values())


def test_a_moved_folder_keeps_its_splits_and_a_lost_file_is_named(tmp_path: Path) -> None:
    for index, source in enumerate(sorted((SAMPLE / "train").rglob("*.png"))[::2]):
        noisy(tmp_path / "old" / source.parent.name / f"{index}.jpg", source, 95)
    whole = load_custom(DataSettings(str(tmp_path / "old")))
    kept = tmp_path / "splits.csv"
    found = assign_splits(whole, DataSettings(), print)
    write_splits(kept, found)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = load_custom(DataSettings(str(tmp_path / "new"))).images
    assert digest(*read_splits(kept, moved).values()) == digest(*found.values())
    next((tmp_path / "new").rglob("*.jpg")).unlink()
    with pytest.raises(DataError, match=r"png|jpg: in .*splits.csv, but no longer in the data; restore"):
        read_splits(kept, load_custom(DataSettings(str(tmp_path / "new"))).images)


def test_a_class_without_training_images_left_is_refused(tmp_path: Path) -> None:
    files = sorted((SAMPLE / "train").rglob("*.png"))
    one = [f"{file},{file.parent.name},{'one owner' if file.parent.name == 'truck' else ''}" for file in files]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,group", *one]))
    with pytest.raises(DataError, match=r"no training image is left of truck; add some, or use smaller fractions"):
        split_files(tmp_path / "table.csv", test=0.6)


def test_classes_with_few_training_images_are_named(tmp_path: Path) -> None:
    files = [file for file in sorted((SAMPLE / "train").rglob("*.png")) if file.parent.name != "ship"]
    ships = sorted((SAMPLE / "train" / "ship").iterdir())[:4]
    rows = [f"{file},{file.parent.name},train" for file in [*files, *ships]]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    said, found = split_files(tmp_path / "table.csv")
    left = sum("/ship/" in file for file in found["train"])
    assert f"classes with few training images, fewer than 5: ship ({left})" in said


def test_doubtful_splits_are_noted(tmp_path: Path) -> None:
    files = sorted((SAMPLE / "train").rglob("*.png"))
    split = ["train" if index % 20 < 10 or file.parent.name == "ship" else "val" for index, file in enumerate(files)]
    rows = [f"{file},{file.parent.name},{name},{file.stem[-1]}" for file, name in zip(files, split, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split,group", *rows]))
    said, _ = split_files(tmp_path / "table.csv")
    torn = len({file.stem[-1] for file in files})
    assert said == [
        f"groups with images in several splits: {torn}; accuracy may be too high",
        "no test set: the data have none, and none is drawn",
        "classes without a validation image: ship; metrics say nothing about them",
    ]
    problems = [problem for problem in check(DataSettings(str(tmp_path / "table.csv"))).problems if "group" in problem.kind]
    assert [problem.text for problem in problems] == ["has images in train, val"] * torn


@pytest.mark.parametrize("change", [("path", "file"), (",train", ",valid"), (",train", ",")])
def test_an_edited_splits_file_gives_a_message(tmp_path: Path, change: tuple[str, str]) -> None:
    config, kept = load_config("davidnet", [f"data.name={SAMPLE}"]), tmp_path / "splits.csv"
    load_splits(config.data, run=RunFolder(kept.parent))
    kept.write_text(kept.read_text().replace(*change, 1))
    with pytest.raises(DataError, match=r"splits.csv, row 1: .*; path and split are needed, the split one of train, val, test"):
        load_splits(config.data, run=RunFolder(kept.parent))


def test_a_fraction_of_less_than_one_image_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(2):
            noisy(
                tmp_path / "few" / name / f"{index}.jpg", sorted((SAMPLE / "train").rglob("*.png"))[index * 40 + ord(name)], 95
            )
    with pytest.raises(SettingsError, match=r"data.test=0.2: less than one image per class; .* or none \(data.test=0\)"):
        split_files(tmp_path / "few")
    with pytest.raises(
        SettingsError, match=r"data.val=0.1: less than one image per class; .* a larger fraction \(at most 0.5\)"
    ):
        split_files(tmp_path / "few", test=0.0, val=0.1)
    assert {name: len(files) for name, files in split_files(tmp_path / "few", test=0.0)[1].items()} == {"train": 2, "val": 2}


def test_a_rare_class_does_not_change_the_fraction_of_others(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1003, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "rare.npz", images=images, labels=[0] * 500 + [1] * 500 + [2] * 3)
    _, found = split_files(tmp_path / "rare.npz", test=0.0)
    assert {name: len(files) for name, files in found.items()} == {"train": 902, "val": 101}
