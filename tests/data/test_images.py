"""Unusual image files become the pixels that a browser shows, or one message."""

import io
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from images import claiming
from sprintnet.data import images
from sprintnet.data.custom.load import load_custom
from sprintnet.data.image_files import IMAGE_FORMATS
from sprintnet.data.images import read_image, resize_image
from sprintnet.data.settings import DataSettings
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


@pytest.mark.parametrize("policy", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize(
    ("sides", "orientation", "fraction"),
    [((1288, 960), 1, 8), ((1288, 960), 6, 4), ((644, 482), 1, 2), ((644, 482), 6, 2), ((641, 480), 1, 1), ((641, 480), 6, 1)],
)
def test_a_jpeg_that_becomes_much_smaller_is_decoded_at_a_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: tuple[int, int], orientation: int, fraction: int, policy: str
) -> None:
    photo = Image.fromarray(load_sample_image("china.jpg")).resize(sides, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.jpg", photo, quality=95, exif=exif)
    seen: list[tuple[int, int]] = []

    def noted(image: Image.Image, *settings: Any) -> Image.Image:
        seen.append(image.size)
        return resize_image(image, *settings)

    monkeypatch.setattr(images, "resize_image", noted)
    found = read_image(path, size=(30, 50), policy=policy)
    smaller = sides[0] // fraction, sides[1] // fraction
    assert seen == [smaller if orientation == 1 else smaller[::-1]]
    whole = resize_image(Image.fromarray(read_image(path)), (30, 50), policy)
    difference = np.abs(found.astype(int) - np.asarray(whole).astype(int))
    assert difference.mean() < 0.5
    assert difference.max() <= 12


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
        (b"\0", "cannot be read as an image (PNG, JPEG, WEBP, BMP, GIF, TIFF"),
        (b"hello", "cannot be read as an image"),
        (claiming(8, 6), "cannot be read as an image"),
        (claiming(8200, 8200), "8200x8200, more than 64 million pixels or a side of 30,000; make it smaller"),
        (claiming(1, 40_000), "1x40000, more than 64 million pixels or a side of 30,000; make it smaller"),
        (claiming(60000, 60000), "more than 64 million pixels; make it smaller"),
        (b"GIF89a" + bytes(20), "cannot be read as an image"),
        (b"II*\0" + bytes(20), "cannot be read as an image"),
        (b"8BPS" + bytes(20), "it is a PSD file; convert it"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "it is a HEIC file; convert it"),
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


def test_a_gif_and_a_tiff_give_their_first_image(tmp_path: Path) -> None:
    second = Image.new("RGB", IMAGE.size, "red")
    palette = IMAGE.quantize(64)
    moving = saved(tmp_path / "a.gif", palette, save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(moving), np.asarray(palette.convert("RGB")))
    for compression in ("raw", "tiff_lzw", "tiff_deflate"):
        pages = saved(tmp_path / "a.tif", IMAGE, save_all=True, append_images=[second], compression=compression)
        np.testing.assert_array_equal(read_image(pages), COLOURS)


@pytest.mark.skipif("AVIF" not in IMAGE_FORMATS, reason="this Pillow reads no AVIF")
def test_an_avif_is_read_as_closely_as_it_was_saved(tmp_path: Path) -> None:
    written = saved(tmp_path / "a.avif", IMAGE, quality=100, subsampling="4:4:4")
    assert np.abs(read_image(written).astype(int) - COLOURS).max() <= 4  # its colours are rounded to YUV


@pytest.mark.parametrize("suffix", ["TIFF", *(["AVIF"] if "AVIF" in IMAGE_FORMATS else [])])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_other_formats_are_turned_as_a_png_of_this_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    as_png = read_image(saved(tmp_path / "a.png", IMAGE, exif=exif.tobytes()))
    options = {"quality": 100, "subsampling": "4:4:4"} if suffix == "AVIF" else {}
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
    other = saved(tmp_path / "images" / "cat" / f"a.{suffix.lower()}", IMAGE, exif=exif.tobytes(), **options)
    assert np.abs(read_image(other).astype(int) - as_png).max() <= 4
    for number in range(3):  # headers know the turned shape
        saved(tmp_path / "images" / "dog" / f"{number}.png", Image.fromarray(as_png ^ np.uint8(number + 1)))
    assert load_custom(DataSettings(str(tmp_path / "images"))).images.image_shape == as_png.shape


def test_32_bits_of_a_tiff_are_read_as_16_or_refused(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 1366, np.int32).reshape(6, 8)
    read = read_image(saved(tmp_path / "a.tif", Image.fromarray(values)), channels=1)
    np.testing.assert_array_equal(read[..., 0], values >> 8)
    for scale, limits in ((100, "from 0 to 6420200"), (-1, "from -64202 to 0")):
        with pytest.raises(DataError, match=f"has values {limits}; convert it to 8 bits"):
            read_image(saved(tmp_path / "b.tif", Image.fromarray(values * np.int32(scale))))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif", *(["avif"] if "AVIF" in IMAGE_FORMATS else [])])
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
    Path(os.fsdecode(name)).write_bytes(b"none")
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(Path(os.fsdecode(name)))
    with pytest.raises(DataError, match="is a folder; name the files in it"):
        read_image(tmp_path)
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: np.ndarray, extra: bytes = b"", depth: int = 8, colour: int = 2, after: bytes = b"") -> bytes:
    """A PNG of bytes (H, W * bytes a pixel) with further chunks before the pixels and after them."""
    height, width = rows.shape[0], rows.shape[1] * 8 // (depth * {0: 1, 2: 3}[colour])
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(raw)) + after + chunk(b"IEND", b"")


TEXT = zlib.compress(b"a" * 3_000_000, 9)
TEXTS = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + TEXT),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + TEXT),
    "iCCP": chunk(b"iCCP", b"icc\0\0" + TEXT),
    "many": chunk(b"tEXt", b"Comment\0" + b"b" * 500_000) * 200,
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_beside_sound_pixels_is_not_looked_at(kind: str) -> None:
    rows = COLOURS.reshape(6, 24)
    np.testing.assert_array_equal(read_image(io.BytesIO(png(rows, TEXTS[kind]))), COLOURS)
    np.testing.assert_array_equal(read_image(io.BytesIO(png(rows, after=TEXTS[kind]))), COLOURS)


def test_transparency_survives_the_change_to_8_bits() -> None:
    eight = np.tile(np.array([0, 240] * 4, np.uint8), (2, 1))
    white = [255, 240] * 4
    colour = chunk(b"tRNS", b"\0\0")
    assert read_image(io.BytesIO(png(eight, colour, 8, 0)), channels=1)[0, :, 0].tolist() == white
    grey = np.tile(np.array([0, 240 << 8] * 4, ">u2").view(np.uint8), (2, 1))
    assert read_image(io.BytesIO(png(grey, colour, 16, 0)), channels=1)[0, :, 0].tolist() == white
    assert read_image(io.BytesIO(png(grey, colour, 16, 0)), channels=4)[0, :, 3].tolist() == [0, 255] * 4
    one = np.tile(np.array([0b10101010], np.uint8), (2, 1))
    assert read_image(io.BytesIO(png(one, colour, 1, 0)), channels=1)[0, :, 0].tolist() == [255] * 8
    red = np.tile(np.array([[65535, 0, 0], [0, 0, 40000]] * 4, ">u2").reshape(-1).view(np.uint8), (2, 1))
    found = read_image(io.BytesIO(png(red, chunk(b"tRNS", b"\xff\xff\0\0\0\0"), 16)))
    assert found[0, :2].tolist() == [[255, 255, 255], [0, 0, 40000 >> 8]]


@pytest.mark.parametrize("top", [255, 4095])
def test_16_bit_files_that_fill_a_part_of_their_range_are_refused(tmp_path: Path, top: int) -> None:
    values = np.linspace(0, top, 48).astype(np.uint16).reshape(6, 8)
    with pytest.raises(DataError, match=f"a.png: 16-bit values from 0 to {top} of 65535 are nearly black; save it with 8 bits"):
        read_image(saved(tmp_path / "a.png", Image.fromarray(values)))
    assert not read_image(saved(tmp_path / "b.png", Image.fromarray(values * 0))).any()  # black is black
    with pytest.raises(DataError, match="16-bit values from 100 to 100 of 65535"):
        read_image(saved(tmp_path / "c.png", Image.fromarray(values * 0 + 100)))


def test_an_image_of_which_nothing_shows_is_refused(tmp_path: Path) -> None:
    clear = Image.fromarray(np.dstack([COLOURS, np.zeros((6, 8), np.uint8)]))
    for channels in (1, 3, 4):
        with pytest.raises(DataError, match=r"a\.png: every pixel is transparent; save it without transparency"):
            read_image(saved(tmp_path / "a.png", clear), channels=channels)


def tiff(*entries: tuple[int, int, int, bytes], more: bytes = b"") -> bytes:
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + more


TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
BEHIND = struct.pack("<I", 8 + 2 + 12 * 2 + 4)
EXIF = {
    "zero denominator": (tiff(TURNED, (0x011A, 5, 1, BEHIND), more=struct.pack("<II", 72, 0)), True),
    "negative rational": (tiff(TURNED, (0x011A, 10, 1, BEHIND), more=struct.pack("<ii", -1, 0)), True),
    "two values": (tiff(TURNED, (0x011A, 5, 2, BEHIND), more=struct.pack("<IIII", 72, 1, 72, 1)), True),
    "text for a number": (tiff(TURNED, (0x011A, 2, 4, b"abc\0")), True),
    "offset behind the end": (tiff(TURNED, (0x010F, 2, 40, struct.pack("<I", 60000))), True),
    "orientation as text": (tiff((0x0112, 2, 2, b"6\0\0\0")), False),
    "orientation 9": (tiff((0x0112, 3, 1, struct.pack("<HH", 9, 0))), False),
    "doubled header": (b"Exif\0\0" + tiff((0x0112, 3, 1, struct.pack("<HH", 1, 0))), False),
    "rubbish": (b"\1\2\3\4garbage", False),
    "empty": (b"", False),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", EXIF)
def test_sound_pixels_are_read_whatever_the_exif_data(kind: str) -> None:
    data, is_turned = EXIF[kind]
    plain = io.BytesIO()
    IMAGE.save(plain, "JPEG", quality=95)
    content = plain.getvalue()
    body = b"Exif\0\0" + data
    marked = content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]
    expected = read_image(io.BytesIO(content))
    np.testing.assert_array_equal(read_image(io.BytesIO(marked)), np.rot90(expected, 3) if is_turned else expected)


def test_what_has_no_end_is_not_read() -> None:
    with pytest.raises(DataError, match="/dev/zero: is a pipe, socket or device; name a file"):
        read_image(Path("/dev/zero"))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
PROFILE = b"\nexif\n%8d\n" % (2 * (len(tiff(TURNED)) + 6)) + (b"Exif\0\0" + tiff(TURNED)).hex().encode() + b"\n"
TURNING = {
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "ImageMagick": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE)),
    "eXIf": chunk(b"eXIf", tiff(TURNED)),
}


@pytest.mark.parametrize("kind", TURNING)
def test_the_orientation_of_a_png_is_obeyed_wherever_it_is(tmp_path: Path, kind: str) -> None:
    content = png(COLOURS.reshape(6, 24), TURNING[kind])
    np.testing.assert_array_equal(read_image(io.BytesIO(content)), np.rot90(COLOURS, 3))
    for name in ("cat", "dog"):
        for number in range(2):
            file = tmp_path / name / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(png(COLOURS.reshape(6, 24) ^ number, TURNING[kind]))
    assert load_custom(DataSettings(str(tmp_path))).images.image_shape == (8, 6, 3)


def test_files_of_thousands_of_empty_parts_are_refused_at_once() -> None:
    plain = io.BytesIO()
    IMAGE.save(plain, "JPEG")
    jpeg = plain.getvalue()
    for content in (
        png(COLOURS.reshape(6, 24), chunk(b"abCd", b"") * 100_000),
        png(COLOURS.reshape(6, 24), chunk(b"IDAT", b"") * 100_000),
        jpeg[:2] + b"\xff" * 4_000_000 + jpeg[2:],
        jpeg[:2] + b"\xff\xe5\x00\x02" * 1_000_000 + jpeg[2:],
    ):
        begun = time.process_time()
        with pytest.raises(DataError, match="has thousands of empty"):
            read_image(io.BytesIO(content))
        assert time.process_time() - begun < 1


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_16_bit_colours_that_fill_a_part_of_their_range_are_refused(colour: int) -> None:
    channels = {2: 3, 4: 2, 6: 4}[colour]
    values = np.linspace(0, 4095, 6 * 8 * channels).reshape(6, 8, channels)
    if colour != 2:
        values[..., -1] = 65535
    rows = values.astype(">u2").reshape(6, -1).view(np.uint8)
    header = struct.pack(">IIBBBBB", 8, 6, 16, colour, 0, 0, 0)
    content = png(rows, depth=16)
    content = content[:8] + chunk(b"IHDR", header) + content[8 + 25 :]
    with pytest.raises(DataError, match=r"16-bit values from about 0 to .* of 65535 are nearly black"):
        read_image(io.BytesIO(content), channels=4)
