"""Decoding and resizing of image files, the same for training and prediction."""

import contextlib
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sprintnet.errors import AccessError, DataError, SettingsError

DECODER_VERSION = 2  # part of the decode cache's path: raise it when a file would be decoded to other pixels
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp")
IMAGE_SUFFIXES = {".png": "PNG", **dict.fromkeys(JPEG_SUFFIXES, "JPEG"), ".webp": "WEBP", ".bmp": "BMP", ".dib": "BMP"}
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
# larger images are refused before they are decoded: a file of a few bytes can claim any size
MAX_PIXELS, MAX_SIDE, MAX_FILE_BYTES = 64_000_000, 30_000, 1 << 29
PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

OTHER_SIGNATURES = {b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF", b"\0\0\1\0": "ICO", b"8BPS": "PSD"}
OTHER_BRANDS = {
    b"ftypavif": "AVIF",
    b"ftypavis": "AVIF",
    b"ftypheic": "HEIC",
    b"ftypmif1": "HEIF",
    b"jP  \r\n\x87\n": "JPEG 2000",
}
"""How files of formats that are not read begin, and how they go on after four bytes."""
PNG_SIGNATURE, JPEG_SIGNATURE, START_OF_SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xda"
PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"})
"""The chunks that change a pixel. Of text, only what may hold the orientation is kept, below MAX_TEXT_BYTES."""
ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
ORIENTATION_KEYS = ("exif", "xmp", *(text[:-1].decode() for text in ORIENTATION_TEXTS))
"""Where Pillow keeps what may hold the orientation."""
MAX_TEXT_BYTES = 1 << 18
MAX_EMPTY_PARTS = 1000  # chunks of a PNG, segments or fill bytes of a JPEG: more take seconds and hold nothing
MIN_PART_BYTES = 16
EXIF_ORIENTATION, SWAPPED_FROM = 0x0112, 5  # the EXIF tag, and the lowest of its values that swap height and width
TURNS = dict(zip(range(2, 9), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True))
MIN_16_BIT_RANGE = 4096  # 16-bit values below this leave fewer than 16 of 256 grey levels

Size = tuple[int, int]  # height, width


def read_image(
    source: Path | BinaryIO | Image.Image,
    name: str = "",
    channels: int = 3,
    formats: tuple[str, ...] = IMAGE_FORMATS,
    size: Size | None = None,
    policy: str = "stretch",
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Returns the pixels of an image, uint8 (H, W, channels): 1 (grey), 3 (RGB) or 4 (RGBA) channels; resized to `size`.

    The EXIF orientation is applied, transparency becomes white (except in RGBA), 16 bits become 8, and of an animation the
    first frame is read. Raises DataError, which calls the image `name` (default: its path), if it is no image, too large, or
    shows nothing: all transparent, or 16-bit values that are nearly black throughout.
    """
    name = name or str(source)
    try:
        with source.copy() if isinstance(source, Image.Image) else open_image(source, formats) as image:
            if image.width * image.height > max_pixels or max(image.size) > MAX_SIDE:
                limits = f"{max_pixels / 10**6:g} million pixels or a side of {MAX_SIDE:,}"
                raise DataError(f"{name}: {image.width}x{image.height}, more than {limits}; make it smaller")
            is_deep = _is_16_bit_colour(image)
            _scale_transparent_colour(image)
            image.load()
            if is_deep:
                _require_levels(image)
            turn = TURNS.get(orientation(image))  # by hand: ImageOps.exif_transpose also writes the EXIF data again
            converted: Image.Image = _to_8_bits(image if turn is None else image.transpose(turn))
            if converted.has_transparency_data and not np.asarray(converted.convert("RGBA"))[..., 3].any():
                raise DataError(f"{name}: every pixel is transparent; save it without transparency, or remove it")
            if channels != 4:
                converted = _flatten_alpha(converted)
            if converted.mode != PIL_MODES[channels]:
                converted = converted.convert(PIL_MODES[channels])
            pixels = np.asarray(converted if size is None else resize_image(converted, size, policy))
    except DataError as error:
        raise type(error)(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # a warning may count as an error
        raise DataError(f"{name}: more than {MAX_PIXELS // 10**6} million pixels; make it smaller") from None
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder; name the files in it") from None
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, UnidentifiedImageError):
            other = _other_format(source)
            cause = f"it is a {other}; convert it" if other else "unknown format"
        else:
            cause = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise AccessError(f"{name}: cannot be read: {cause}; make it readable, or remove it") from None
        raise DataError(f"{name}: cannot be read as an image ({', '.join(formats)}): {cause}; repair or remove it") from None
    return pixels.reshape(*pixels.shape[:2], channels)


def open_image(source: Path | BinaryIO, formats: tuple[str, ...] = IMAGE_FORMATS) -> Image.Image:
    """Returns an image whose pixels are not decoded yet; text in a PNG is not looked at."""
    content = _read(source) if isinstance(source, Path) else source.read()
    return Image.open(io.BytesIO(_without_text(content)), formats=formats)


def _read(file: Path) -> bytes:
    """Returns the content of a file; raises DataError for what is none, which may have no end, or is too large."""
    status = file.stat()
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        raise DataError("is empty; restore or remove it")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise DataError("is a pipe, socket or device; name a file")
    if status.st_size > MAX_FILE_BYTES:
        raise DataError(f"has {status.st_size:,} bytes, more than {MAX_FILE_BYTES:,}; make it smaller")
    return file.read_bytes()


def orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 (upright) where there is none or the EXIF data cannot be read."""
    try:
        found = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF data can raise anything
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _without_text(content: bytes) -> bytes:
    """Returns the content of a file, of a PNG without what changes no pixel; raises DataError for thousands of empty parts."""
    if content.startswith(JPEG_SIGNATURE):
        _check_jpeg(content)
    if not content.startswith(PNG_SIGNATURE):
        return content
    kept, start, empty = [PNG_SIGNATURE], len(PNG_SIGNATURE), 0
    while start + 8 <= len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        end = start + 12 + length  # length, kind, data, checksum
        kind, data = content[start + 4 : start + 8], content[start + 8 : end - 4]
        if kind in PNG_CHUNKS or _holds_orientation(kind, data):
            kept.append(content[start:end])
        empty += length < MIN_PART_BYTES
        if empty > MAX_EMPTY_PARTS:
            raise DataError("has thousands of empty chunks; save it again")
        start = end
    return b"".join(kept)


def _holds_orientation(kind: bytes, data: bytes) -> bool:
    """Returns whether a text chunk of a PNG may hold the orientation and is small, decompressed too."""
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or len(data) > MAX_TEXT_BYTES or not data.startswith(ORIENTATION_TEXTS):
        return False
    if kind == b"tEXt":
        return True
    packed = data.split(b"\0", 1)[1][1:] if kind == b"zTXt" else data.split(b"\0", 5)[-1]
    if kind == b"iTXt" and data.split(b"\0", 1)[1][:1] != b"\1":  # not compressed
        return True
    decompressor = zlib.decompressobj()
    with contextlib.suppress(zlib.error):
        decompressor.decompress(packed, MAX_TEXT_BYTES)
        return not decompressor.unconsumed_tail
    return False


def _check_jpeg(content: bytes) -> None:
    """Raises DataError for a JPEG with thousands of segments or fill bytes before its pixels."""
    start = 2
    for _ in range(MAX_EMPTY_PARTS):
        if content[start : start + 1] != b"\xff" or content[start + 1 : start + 2] == START_OF_SCAN:
            return
        if content[start + 1 : start + 2] == b"\xff":
            start += 1
        else:
            start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    raise DataError("has thousands of empty segments; save it again")


def _other_format(source: Any) -> str:
    """Returns the name of a file's format where it is a known one that is not read."""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                head = file.read(16)
        else:
            source.seek(0)
            head = source.read(16)
    except OSError:
        return ""
    beginnings = [(head, OTHER_SIGNATURES), (head[4:], OTHER_BRANDS)]
    return next((name for bytes_, known in beginnings for sign, name in known.items() if bytes_.startswith(sign)), "")


def each_image(images: Any) -> Iterator[Any]:
    """Returns an iterator over one path, PIL image or array (H, W) or (H, W, C), an array (N, H, W, C), or any iterable."""
    if isinstance(images, str | os.PathLike | Image.Image) or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        return iter([images])
    if not isinstance(images, Iterable) or isinstance(images, bytes) or getattr(images, "ndim", 4) not in (1, 4):
        raise _unusable(images)
    return iter(images)


def as_pixels(image: Any, channels: int, size: Size | None = None, policy: str = "stretch") -> npt.NDArray[np.uint8]:
    """Returns the pixels uint8 (H, W, channels) of a path, a PIL image or an array, of a size if one is given.

    Arrays are (H, W) or (H, W, C) with 1, 3 or 4 channels, uint8 or floats in 0..1. Raises DataError for a file that cannot be
    read as an image, SettingsError for any other unusable input.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image), channels=channels, size=size, policy=policy)
    if isinstance(image, Image.Image):
        return read_image(image, "images: a PIL image", channels, size=size, policy=policy)
    is_image = (
        isinstance(image, np.ndarray) and 0 not in image.shape and (image.ndim == 2 or image.shape[2:] in ((1,), (3,), (4,)))
    )
    if not is_image or not (image.dtype == np.uint8 or image.dtype.kind == "f"):
        raise _unusable(image)
    pixels = to_uint8("images", image.reshape(*image.shape[:2], -1))
    return convert_pixels(pixels, (*(size or pixels.shape[:2]), channels), policy)


def to_uint8(name: str, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Returns pixels as uint8, floats in 0..1 scaled to 0..255; raises DataError for other floats."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    if not 0 <= low <= high <= 1:  # false for NaN
        raise DataError(f"{name}: floats from {low:g} to {high:g}; must be in 0..1, or uint8 in 0..255")
    return np.asarray(np.rint(pixels * 255), np.uint8)


def _unusable(images: Any) -> SettingsError:
    found = f"{images.dtype} of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
    rule = "must be files, PIL images, or arrays (H, W), (H, W, 1, 3 or 4) or (N, H, W, 1, 3 or 4), uint8 or floats in 0..1"
    return SettingsError(f"images: {found}; {rule}")


def convert_pixels(pixels: npt.NDArray[np.uint8], shape: tuple[int, int, int], policy: str) -> npt.NDArray[np.uint8]:
    """Returns pixels uint8 (H, W, C) converted to another shape (height, width, channels), as by `read_image`."""
    if pixels.shape == shape:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    converted = (image if shape[2] == 4 else _flatten_alpha(image)).convert(PIL_MODES[shape[2]])
    return np.asarray(resize_image(converted, shape[:2], policy)).reshape(shape)


def resize_image(image: Image.Image, size: Size, policy: str) -> Image.Image:
    """Returns the image resized by a policy of `data.resize`, bilinear and antialiased, as in an exported model."""
    height, width = size
    if (image.height, image.width) == size:
        return image
    if policy == "crop":
        image = image.crop(center_crop_box((image.height, image.width), size))
    if policy != "letterbox":
        return _resized(image, (height, width))
    inner = letterbox_size((image.height, image.width), size)
    canvas = Image.new(image.mode, (width, height))
    canvas.paste(_resized(image, inner), ((width - inner[1]) // 2, (height - inner[0]) // 2))
    return canvas


def _resized(image: Image.Image, size: Size) -> Image.Image:
    if image.mode == "RGBA":  # per channel: Pillow would weight colours by opacity
        return Image.merge("RGBA", [_resized(band, size) for band in image.split()])
    return image.resize(size[::-1], Image.Resampling.BILINEAR)


def center_crop_box(image: Size, size: Size) -> tuple[int, int, int, int]:
    """Returns the largest centred box (left, upper, right, lower) in an image with the aspect ratio of `size`."""
    height = min(image[0], max(1, image[1] * size[0] // size[1]))
    width = min(image[1], max(1, image[0] * size[1] // size[0]))
    upper, left = (image[0] - height) // 2, (image[1] - width) // 2
    return left, upper, left + width, upper + height


def letterbox_size(image: Size, size: Size) -> Size:
    """Returns the largest height and width with the aspect ratio of an image that fit into `size`."""
    return min(size[0], max(1, image[0] * size[1] // image[1])), min(size[1], max(1, image[1] * size[0] // image[0]))


def _is_16_bit_colour(image: Image.Image) -> bool:
    """Returns whether Pillow decodes an image of 16 bits and several channels to its upper 8 bits."""
    tiles: Any = getattr(image, "tile", ())
    return bool(tiles) and ";16" in str(tiles[0][3]) and image.mode in ("RGB", "RGBA", "LA")


def _require_levels(image: Image.Image) -> None:
    """Raises DataError where the upper 8 of 16 bits leave fewer than 16 levels."""
    values = np.asarray(image)[..., : 3 if image.mode.startswith("RGB") else 1]
    low, high = int(values.min()), int(values.max())
    if high < MIN_16_BIT_RANGE >> 8:  # whether that is black cannot be told any more
        limits = f"from about {low << 8} to {high << 8}"
        raise DataError(f"16-bit values {limits} of 65535 are nearly black; save it with 8 bits, or scale its values")


def _scale_transparent_colour(image: Image.Image) -> None:
    """Halves the bits of the transparent colour of a 16-bit RGB image, whose pixels Pillow decodes to 8 bits."""
    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and _is_16_bit_colour(image):
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Returns the image with 8 bits per channel; raises DataError where next to nothing would be left of 16 bits."""
    if image.mode == "F":
        raise DataError("has values of floating point; convert it to 8 bits (mode L)")
    if not image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 255
        return image
    values, colour = np.asarray(image), image.info.get("transparency")
    visible = np.ones(values.shape, bool) if colour is None else values != colour
    low, high = values.min(where=visible, initial=65535), values.max(where=visible, initial=0)
    if 0 < high < MIN_16_BIT_RANGE:
        raise DataError(
            f"16-bit values from {low} to {high} of 65535 are nearly black; save it with 8 bits, or scale its values"
        )
    grey = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    return grey if colour is None else Image.merge("LA", [grey, Image.fromarray(visible.astype(np.uint8) * 255)])


def _flatten_alpha(image: Image.Image) -> Image.Image:
    """Returns an image of 8 bits per channel on white instead of transparency."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
