"""The built-in datasets: their descriptions, each format from small files, and the real ones if cached."""

import gzip
import hashlib
import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from sklearn.datasets import load_digits

from small_sets import archive, expect, set_sources, to_idx, write_folder
from sprintnet.cli import main as cli
from sprintnet.config import load_config, recipes
from sprintnet.data.builtin import cache, download
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.errors import DataError, SettingsError
from sprintnet.runs.io import cache_folder
from sprintnet.training.setup import dataset_facts

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("name", BUILTIN_DATASETS)
def test_a_description_is_complete(name: str, empty_cache: None) -> None:
    known = BUILTIN_DATASETS[name]
    assert not [source.label for source in known.sources if "http://" in source.label]
    assert len(set(known.classes)) == len(known.classes) == (100 if name == "cifar100" else 10)
    assert len(known.sources) >= 2
    for file in known.files:
        assert len(bytes.fromhex(file.sha256)) == 32
    if len(known.files) == 4:  # IDX: a header, then one byte a pixel, or a label
        assert [file.size for file in known.files] == [
            16 + 784 * known.images[0], 8 + known.images[0], 16 + 784 * known.images[1], 8 + known.images[1],
        ]  # fmt: skip
    for recipe in recipes():
        config = load_config(recipe, [f"data.name={name}"])
        facts = dataset_facts(config, None)
        kept = known.images[0] - min(1000, round(known.images[0] / 10))
        assert (facts.images, facts.classes, facts.image_shape) == (kept, len(known.classes), known.image_shape)
    assert not cache_folder().exists()  # nothing was fetched for that


@pytest.mark.parametrize("form", ["gzipped", "plain", "dotted"])
def test_idx_files_become_grey_images(idx: dict[str, np.ndarray], tmp_path: Path, form: str) -> None:
    members = {name: to_idx(array) for name, array in idx.items()}
    if form == "gzipped":
        members = {f"{name}.gz": gzip.compress(content, mtime=5) for name, content in members.items()}
    elif form == "dotted":
        members = {name.replace("-idx", ".idx"): content for name, content in members.items()}
    train, test = cache.load("mnist", write_folder(tmp_path / "source", members))
    train_images, train_labels, test_images, test_labels = idx.values()
    assert (train.image_shape, train.classes) == ((28, 28, 1), tuple("0123456789"))
    np.testing.assert_array_equal(train.images[..., 0], train_images)
    np.testing.assert_array_equal(train.labels, train_labels)
    np.testing.assert_array_equal(test.images[..., 0], test_images)
    np.testing.assert_array_equal(test.labels, test_labels)
    torch.from_numpy(train.images)  # warns, which fails, unless the array is writable


def test_the_cache_keeps_the_files_and_replaces_damaged_ones(idx: dict[str, np.ndarray], tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", {f"{name}.gz": gzip.compress(to_idx(array)) for name, array in idx.items()})
    files = cache.fetch("mnist", source)
    assert cache.is_cached("mnist")
    assert {path.name for path in (cache_folder() / "mnist").iterdir()} == {*idx, ".lock"}
    cached = cache_folder() / "mnist" / "t10k-images-idx3-ubyte"
    content = cached.read_bytes()
    for damaged in (content[:-9], b"", content[:40] + b"\xff" * 8 + content[48:]):
        cached.write_bytes(damaged)
        lines: list[str] = []
        assert cache.fetch("mnist", source, lines.append) == files
        assert "the cached copy is damaged and will be replaced: t10k-images-idx3-ubyte" in lines[0]
        assert cached.read_bytes() == content


def test_a_gzip_bomb_is_refused_at_its_first_byte_too_many(idx: dict[str, np.ndarray], tmp_path: Path) -> None:
    members = {name: to_idx(array) for name, array in idx.items()}
    del members["train-images-idx3-ubyte"]
    members["train-images-idx3-ubyte.gz"] = gzip.compress(bytes(10_000_000))
    with pytest.raises(DataError, match="train-images-idx3-ubyte has 5,505 bytes, not 5,504"):
        cache.fetch("mnist", write_folder(tmp_path / "source", members))


@pytest.mark.parametrize("layout", ["binary", "python"])
def test_cifar100_uses_the_fine_label(monkeypatch: pytest.MonkeyPatch, empty_cache: None, tmp_path: Path, layout: str) -> None:
    members, contents, pickles = {}, [], []
    for stem, count in (("train", 6), ("test", 4)):
        coarse, fine = GENERATOR.integers(0, 20, count), GENERATOR.integers(0, 100, count)
        pixels = GENERATOR.integers(0, 256, (count, 3072), np.uint8)
        contents.append(np.column_stack([coarse, fine, pixels]).astype(np.uint8).tobytes())
        batch = {b"fine_labels": fine.tolist(), b"coarse_labels": coarse.tolist(), b"data": pixels}
        pickles.append(pickle.dumps(batch, protocol=2))
        if layout == "python":
            members[f"cifar-100-python/{stem}"] = pickles[-1]
        else:
            members[f"cifar-100-binary/{stem}.bin"] = contents[-1]
    expect(monkeypatch, "cifar100", contents, pickles)
    train, test = cache.load("cifar100", str(archive(tmp_path / "cifar-100.tar.gz", members)))
    assert (train.images.shape, test.images.shape) == ((6, 32, 32, 3), (4, 32, 32, 3))
    np.testing.assert_array_equal(test.labels, fine)
    np.testing.assert_array_equal(test.images.transpose(0, 3, 1, 2).reshape(4, 3072), pixels)
    assert train.classes[0], train.classes[99] == ("apple", "worm")


@pytest.fixture
def svhn(monkeypatch: pytest.MonkeyPatch, empty_cache: None, tmp_path: Path) -> tuple[str, np.ndarray]:
    """A folder with two small MATLAB files as the official ones of SVHN, and the images of the second (N, H, W, C)."""
    members = {}
    for name, labels in (("train_32x32.mat", [1, 9, 10, 5]), ("test_32x32.mat", [10, 2])):
        images = GENERATOR.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
        stream = io.BytesIO()
        savemat(stream, {"X": images.transpose(1, 2, 3, 0), "y": np.array(labels, np.uint8)[:, None]}, do_compression=True)
        members[name] = stream.getvalue()
    expect(monkeypatch, "svhn", list(members.values()))
    return write_folder(tmp_path / "source", members), images


def test_svhn_is_read_and_its_ten_is_the_digit_zero(svhn: tuple[str, np.ndarray]) -> None:
    source, images = svhn
    train, test = cache.load("svhn", source)
    assert train.labels.tolist() == [1, 9, 0, 5]
    assert test.labels.tolist() == [0, 2]
    np.testing.assert_array_equal(test.images, images)
    assert test.images.flags.c_contiguous


class WithoutScipy:
    """Import finder without SciPy."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")


def test_without_scipy_the_extra_is_named(
    svhn: tuple[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "scipy.io")
    monkeypatch.delitem(sys.modules, "scipy")
    monkeypatch.setattr(sys, "meta_path", [WithoutScipy(), *sys.meta_path])
    overrides = ["data.name=svhn", f"data.source={svhn[0]}", "batch_size=2", "threads=1"]
    assert cli.main(["train", "smoke", *overrides]) == 2
    assert "needs scipy; in a clone of the repository: " in capsys.readouterr().err


def test_digits_are_those_of_scikit_learn_with_a_fixed_split(empty_cache: None) -> None:
    train, test = cache.load("digits")
    expected = load_digits()
    assert (len(train), len(test)) == BUILTIN_DATASETS["digits"].images
    kept = np.concatenate([train.images, test.images])[..., 0]
    whole = np.rint(expected.images * (255 / 16)).astype(np.uint8)

    def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
        return sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))

    assert rows(kept, np.concatenate([train.labels, test.labels])) == rows(whole, expected.target)
    shares = np.bincount(test.labels) / np.bincount(expected.target)
    assert np.abs(shares - 0.2).max() < 0.003
    assert (
        hashlib.sha256(test.images.tobytes()).hexdigest() == "79f879f7d5c51589b8875b8f9a3b4cce601d08519a4c9060910c1b6df2c5db27"
    )


def test_an_unavailable_dataset_says_what_to_download(idx: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    set_sources(monkeypatch, "mnist", download.installed("images", "no_such_module", "data"))
    with pytest.raises(DataError) as caught:
        cache.fetch("mnist")
    assert str(caught.value).splitlines() == [
        "MNIST could not be obtained:",
        "  images, installed: images is not installed",
        "download its four .gz files into a folder by other means, then: sprintnet data fetch mnist --source PATH",
    ]


@pytest.mark.parametrize(("name", "shown"), [("cifar11", "cifar11"), ("", r"\(none\)"), (".", r"\.")])
def test_an_unknown_dataset_is_refused_with_the_known_names(name: str, shown: str) -> None:
    with pytest.raises(SettingsError, match=f"dataset {shown}: must be one of cifar10, cifar100, fashion-mnist, mnist"):
        cache.fetch(name)


def test_a_mistyped_dataset_gets_a_suggestion() -> None:
    with pytest.raises(SettingsError, match=r"dataset cifa10: must be one of .*; did you mean cifar10\?"):
        cache.fetch("cifa10")


def test_the_list_shows_each_dataset_and_whether_it_is_cached(
    idx: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.fetch("mnist", write_folder(tmp_path / "source", {name: to_idx(array) for name, array in idx.items()}))
    capsys.readouterr()
    assert cli.main(["data", "list"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["name", *BUILTIN_DATASETS]
    assert [line.split() for line in lines if line.startswith(("mnist", "svhn"))] == [
        ["mnist", "60,000", "10,000", "28x28x1", "10", "yes"],
        ["svhn", "73,257", "26,032", "32x32x3", "10", "no"],
    ]
    assert "  from apt-get download dataset-fashion-mnist" in lines


MEANS = {
    "cifar100": (0.5071, 0.4865, 0.4409),
    "fashion-mnist": (0.2860,),
    "mnist": (0.1307,),
    "svhn": (0.4377, 0.4438, 0.4728),
}
"""Means used by published training code: https://github.com/pytorch/examples and others."""


@pytest.mark.parametrize("name", MEANS)
def test_a_real_dataset_has_the_known_statistics(name: str) -> None:
    if not cache.is_cached(name):
        pytest.skip(f"not in the cache: sprintnet data fetch {name}")
    known = BUILTIN_DATASETS[name]
    files = cache.fetch(name)
    assert all(file.verify(files[file.name]) for file in known.files)
    train, test = cache.load(name)
    assert (len(train), len(test)) == known.images
    assert train.image_shape == test.image_shape == known.image_shape
    assert train.images.mean(axis=(0, 1, 2)) / 255 == pytest.approx(MEANS[name], abs=1e-4)
    assert set(train.labels) == set(test.labels) == set(range(len(known.classes)))
