"""Decoding and resizing of image files, the same for training and prediction."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sprintnet.data.image_files import IMAGE_FORMATS, SWAPPED_FROM, open_image, orientation, other_format
from sprintnet.errors import AccessError, DataError, SettingsError

DECODER_VERSION = 3  # part of the decode cache's path: raise it when files are decoded to other pixels
MAX_PIXELS, MAX_SIDE = 64_000_000, 30_000  # more are refused before they are decoded: a few bytes can claim any size
PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

JPEG_FRACTIONS = (8, 4, 2)
"""A JPEG can be decoded at 1/8, 1/4 or 1/2 of its sides: its blocks of 8x8 pixels at once, instead of each pixel."""
MIN_REDUCTION = 3  # left to antialiasing: with 2, pixels differ half as much again
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
                raise DataError(f"{image.width}x{image.height}, more than {limits}; make it smaller")
            is_deep = _is_16_bit_colour(image)
            _scale_transparent_colour(image)
            fraction = _decode_smaller(image, size) if size and image.format in ("JPEG", "MPO") else 1
            image.load()
            if is_deep:
                _require_levels(image)
            turn = TURNS.get(orientation(image))  # by hand: ImageOps.exif_transpose also writes the EXIF data again
            converted: Image.Image = _to_8_bits(image if turn is None else image.transpose(turn))
            if converted.has_transparency_data and not np.asarray(converted.convert("RGBA"))[..., 3].any():
                raise DataError("every pixel is transparent; save it without transparency, or remove it")
            if channels != 4:
                converted = _flatten_alpha(converted)
            if converted.mode != PIL_MODES[channels]:
                converted = converted.convert(PIL_MODES[channels])
            pixels = np.asarray(converted if size is None else resize_image(converted, size, policy, fraction))
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # a warning may count as an error
        raise DataError(f"{name}: more than {MAX_PIXELS // 10**6} million pixels; make it smaller") from None
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder; name the files in it") from None
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, UnidentifiedImageError):
            if other := other_format(source, formats):
                article = "an" if other[:1] in ("A", "I") else "a"
                raise DataError(f"{name}: it is {article} {other} file; convert it to JPEG or PNG, or remove it") from None
            cause = "unknown format"
        else:
            cause = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise AccessError(f"{name}: cannot be read: {cause}; make it readable, or remove it") from None
        raise DataError(f"{name}: cannot be read as an image ({', '.join(formats)}): {cause}; repair or remove it") from None
    return pixels.reshape(*pixels.shape[:2], channels)


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


def resize_image(image: Image.Image, size: Size, policy: str, fraction: int = 1) -> Image.Image:
    """Returns the image resized by a policy of `data.resize`, bilinear and antialiased, as in an exported model.

    An image that was decoded at 1/`fraction` of its sides is cropped where the whole one would be.
    """
    height, width = size
    if (image.height, image.width) == size:
        return image
    whole = fraction * image.height, fraction * image.width
    if policy == "crop":
        box = center_crop_box(whole, size)
        if fraction == 1:
            return _resized(image.crop(box), size)
        left, upper, right, lower = (edge / fraction for edge in box)
        return _resized(image, size, (left, upper, right, lower))
    if policy != "letterbox":
        return _resized(image, (height, width))
    inner = letterbox_size(whole, size)
    canvas = Image.new(image.mode, (width, height))
    canvas.paste(_resized(image, inner), ((width - inner[1]) // 2, (height - inner[0]) // 2))
    return canvas


def _resized(image: Image.Image, size: Size, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    if image.mode == "RGBA":  # per channel: Pillow would weight colours by opacity
        return Image.merge("RGBA", [_resized(band, size, box) for band in image.split()])
    return image.resize(size[::-1], Image.Resampling.BILINEAR, box)


def center_crop_box(image: Size, size: Size) -> tuple[int, int, int, int]:
    """Returns the largest centred box (left, upper, right, lower) in an image with the aspect ratio of `size`."""
    height = min(image[0], max(1, image[1] * size[0] // size[1]))
    width = min(image[1], max(1, image[0] * size[1] // size[0]))
    upper, left = (image[0] - height) // 2, (image[1] - width) // 2
    return left, upper, left + width, upper + height


def letterbox_size(image: Size, size: Size) -> Size:
    """Returns the largest height and width with the aspect ratio of an image that fit into `size`."""
    return min(size[0], max(1, image[0] * size[1] // image[1])), min(size[1], max(1, image[1] * size[0] // image[0]))


def _decode_smaller(image: Image.Image, size: Size) -> int:
    """Makes a JPEG decode at 1/2, 1/4 or 1/8 of its sides that is still three times `size`; returns 2, 4 or 8, or 1: whole.

    A photo of 20 megapixels is read eight times as fast; the resized pixels of a sharp one differ by up to half a level (of
    256) on average. A fraction that does not divide both sides would shift them.
    """
    height, width = size if orientation(image) < SWAPPED_FROM else size[::-1]
    for fraction in JPEG_FRACTIONS:
        smaller = image.width // fraction, image.height // fraction
        is_whole = image.size == (smaller[0] * fraction, smaller[1] * fraction)
        if is_whole and smaller[0] >= MIN_REDUCTION * width and smaller[1] >= MIN_REDUCTION * height:
            image.draft(None, smaller)
            return fraction
    return 1


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
    """Takes the upper 8 bits of the transparent colour of a 16-bit RGB image, whose pixels Pillow decodes to 8 bits."""
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
    if values.min() < 0 or values.max() > 65535:  # 32 bits, of a TIFF
        raise DataError(f"has values from {values.min()} to {values.max()}; convert it to 8 bits (mode L)")
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
