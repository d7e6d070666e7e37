"""Duplicates are found in spite of size, compression, colour and shift; none among different images."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from sklearn.datasets import load_digits

from conftest import SAMPLE
from sprintnet.data.custom.load import load_custom
from sprintnet.data.dataset import ImageDataset, Images
from sprintnet.data.duplicates import Duplicate, find_duplicates
from sprintnet.data.settings import DataSettings


@pytest.fixture(scope="module")
def sample() -> Images:
    return load_custom(DataSettings(str(SAMPLE))).images.images


def data(images: Images) -> ImageDataset:
    return ImageDataset(images, np.zeros(len(images), np.int64), ("one",))


def changed(image: Images, how: str) -> Images:
    changed_image = Image.fromarray(image)
    if how == "compressed":
        stream = io.BytesIO()
        changed_image.save(stream, "JPEG", quality=70)
        changed_image = Image.open(stream)
    if how == "resized":
        changed_image = changed_image.resize((24, 24), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR)
    if how == "brighter":
        changed_image = ImageEnhance.Brightness(changed_image).enhance(1.2)
    if how == "grey":
        changed_image = changed_image.convert("L").convert("RGB")
    if how.startswith("shifted"):
        down, right = map(int, how.split()[1:])
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), "edge")
        return padded[3 - down : 35 - down, 3 - right : 35 - right]
    return np.asarray(changed_image)


def test_different_images_are_no_duplicates(sample: Images) -> None:
    assert find_duplicates(data(sample)) == []


def test_equal_pixels_are_exact_and_each_pair_is_named_once(sample: Images) -> None:
    twice = data(np.concatenate([sample[:20], sample[5:7], sample[5:6]]))
    assert find_duplicates(twice) == [
        Duplicate(5, 20, 1.0),
        Duplicate(5, 22, 1.0),
        Duplicate(6, 21, 1.0),
    ]
    assert all(pair.is_exact for pair in find_duplicates(twice))
    assert find_duplicates(data(sample[:20]), data(sample[10:12])) == [Duplicate(10, 0, 1.0), Duplicate(11, 1, 1.0)]


@pytest.mark.parametrize(
    ("how", "least"),
    [
        *[("compressed", 0.95), ("resized", 0.95), ("brighter", 0.95), ("grey", 0.98)],
        *[("shifted 0 1", 0.98), ("shifted 1 1", 0.98), ("shifted 2 -2", 0.95), ("shifted 3 3", 0.85)],
    ],
)
def test_near_duplicates_are_found_and_only_these(sample: Images, how: str, least: float) -> None:
    others = np.stack([changed(image, how) for image in sample])
    found = find_duplicates(data(sample), data(others))
    assert {pair.first for pair in found} >= {pair.second for pair in found}
    assert all(pair.first == pair.second for pair in found)
    assert len(found) >= least * len(sample)


def drawn(seed: int, side: int = 64) -> tuple[Images, object]:
    """Returns a drawing (64, 64, 3), a circle or a square of one colour on another, and its shape and colours."""
    draw = np.random.default_rng(seed)
    colours = [(200, 30, 30), (50, 205, 50), (128, 128, 0), (30, 60, 220), (128, 128, 128), (220, 30, 220)]
    background, colour = (colours[index] for index in draw.permutation(6)[:2])
    picture = Image.new("RGB", (side, side), background)
    x, y, size = (*draw.integers(4, 30, 2).tolist(), int(draw.integers(20, 30)))
    shape = ImageDraw.Draw(picture)
    (shape.ellipse if seed % 2 else shape.rectangle)((x, y, x + size, y + size), fill=colour)
    return np.asarray(picture), (seed % 2, background, colour)


def test_drawn_shapes_of_other_colours_are_different_images() -> None:
    def circle(background: str, colour: str) -> Images:
        picture = Image.new("RGB", (64, 64), background)
        ImageDraw.Draw(picture).ellipse((12, 12, 50, 50), fill=colour)
        return np.asarray(picture)

    others = [("olive", "red"), ("navy", "red"), ("lime", "blue"), ("lime", "grey")]
    found = find_duplicates(data(np.stack([circle("lime", "grey")])), data(np.stack([circle(*pair) for pair in others])))
    assert found == [Duplicate(0, 3, 1.0)]


def test_near_duplicates_among_drawings_have_the_same_shape_and_colours() -> None:
    drawings, kinds = zip(*map(drawn, range(300)), strict=True)
    found = find_duplicates(data(np.stack(drawings)))
    assert all(kinds[pair.first] == kinds[pair.second] for pair in found)
    assert 0 < len(found) < 30


def test_a_few_copies_are_found_in_a_small_set(sample: Images) -> None:
    copies = [np.asarray(ImageEnhance.Brightness(Image.fromarray(sample[3])).enhance(factor)) for factor in (1.1, 1.2, 1.3)]
    found = find_duplicates(data(np.concatenate([sample[:20], np.stack(copies)])))
    assert {(pair.first, pair.second) for pair in found} == {(3, 20), (3, 21), (3, 22), (20, 21), (20, 22), (21, 22)}


def test_images_with_many_near_duplicates_are_no_duplicates(capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)  # one drawing with a little noise: as in frames of a film, only equal pixels count
    frames = np.stack([drawn(1)[0]] * 60).astype(int) + draw.integers(-9, 9, (60, 64, 64, 3))
    assert find_duplicates(data(frames.clip(0, 255).astype(np.uint8))) == []
    assert "only equal pixels count as duplicates" in capsys.readouterr().out


def test_images_of_one_colour_are_duplicates_only_if_equal() -> None:
    plain = np.stack([np.full((16, 16, 3), colour, np.uint8) for colour in (0, 0, 9, 200)])
    assert find_duplicates(data(plain)) == [Duplicate(0, 1, 1.0)]


def test_images_that_all_look_alike_are_no_duplicates() -> None:
    images = load_digits().images.repeat(4, axis=1).repeat(4, axis=2)
    digits = (images[..., None] * 15.9).astype(np.uint8)
    assert find_duplicates(data(digits[:1400]), data(np.concatenate([digits[1400:], digits[:1]]))) == [Duplicate(0, 397, 1.0)]


@pytest.mark.cifar10
def test_cifar10_has_the_known_near_duplicates() -> None:
    from sprintnet.data.builtin.cache import load

    train, test = load("cifar10")
    found = find_duplicates(train, test)
    assert len({pair.second for pair in found}) == 300  # 3.25 % by CNN features and by eye: arXiv:1902.00423
