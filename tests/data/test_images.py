"""Unusual image files become the pixels that a browser shows, or one message."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from images import claiming
from sprintnet.data.images import read_image
from sprintnet.errors import DataError

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
IMAGE = Image.fromarray(COLOURS)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_plain_files_are_decoded_exactly(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp"):
        np.testing.assert_array_equal(read_image(saved(tmp_path / name, IMAGE)), COLOURS)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.webp", IMAGE, lossless=True)), COLOURS)
    grey = np.asarray(IMAGE.convert("L"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=1), grey[..., None])
    np.testing.assert_array_equal(read_image(saved(tmp_path / "grey.png", IMAGE.convert("L"))), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize(("orientation", "turned"), [(3, (2, 2)), (6, (3, 1)), (8, (1, 1)), (2, None)])
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int, turned: tuple[int, int] | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_image(saved(tmp_path / "a.png", IMAGE, exif=exif))
    np.testing.assert_array_equal(pixels, COLOURS[:, ::-1] if turned is None else np.rot90(COLOURS, turned[0]))


def test_16_bits_become_8(tmp_path: Path) -> None:
    deep = (np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300) + 7
    pixels = read_image(saved(tmp_path / "a.png", Image.fromarray(deep)))
    np.testing.assert_array_equal(pixels[..., 0], deep >> 8)


def test_transparency_becomes_white(tmp_path: Path) -> None:
    clear = np.dstack([COLOURS, np.full((6, 8), 255, np.uint8)])
    clear[0, 0] = (9, 9, 9, 0)
    expected = COLOURS.copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(clear))), expected)
    palette = IMAGE.convert("P", palette=Image.Palette.ADAPTIVE)
    first = np.asarray(palette) == 0
    np.testing.assert_array_equal(read_image(saved(tmp_path / "p.png", palette, transparency=0))[first], 255)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "q.png", palette)), np.asarray(palette.convert("RGB")))


def test_cmyk_and_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    cmyk = IMAGE.convert("CMYK")
    written = saved(tmp_path / "a.jpg", cmyk, quality=100, subsampling=0)
    with Image.open(written) as image:
        np.testing.assert_array_equal(read_image(written), np.asarray(image.convert("RGB")))
    second = Image.new("RGB", IMAGE.size, "red")
    moving = saved(tmp_path / "a.webp", IMAGE, save_all=True, append_images=[second], lossless=True)
    np.testing.assert_array_equal(read_image(moving), COLOURS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as an image (PNG, JPEG, WEBP, BMP)"),
        (b"hello", "cannot be read as an image"),
        (claiming(8, 6), "cannot be read as an image"),
        (claiming(8200, 8200), "8200x8200, more than 64 million pixels; make it smaller"),
        (claiming(60000, 60000), "more than 64 million pixels; make it smaller"),
        (b"GIF89a" + bytes(20), "cannot be read as an image"),
    ],
)
def test_a_file_that_is_no_image_gives_one_message(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    with pytest.raises(DataError, match=r"^upload 1: "):
        read_image(io.BytesIO(content), "upload 1")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_damaged_files_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    whole = saved(tmp_path / f"whole.{suffix}", IMAGE).read_bytes()
    file = tmp_path / f"a.{suffix}"
    generator = np.random.default_rng(1)
    failed = 0
    for _ in range(100):
        damaged = bytearray(whole[: generator.integers(len(whole) + 1)])
        for _ in range(generator.integers(3)):
            if damaged:
                damaged[generator.integers(len(damaged))] = generator.integers(256)
        file.write_bytes(damaged)
        try:
            assert read_image(file).dtype == np.uint8
        except DataError:
            failed += 1
    assert failed > 30


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(Path(os.fsdecode(name)))
    with pytest.raises(DataError, match="is a folder; name the files in it"):
        read_image(tmp_path)
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
