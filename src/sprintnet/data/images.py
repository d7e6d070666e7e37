"""Decoding and resizing of image files, the same for training and prediction."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from sprintnet.errors import AccessError, DataError, SettingsError

DECODER_VERSION = 1  # part of the decode cache's path: raise it when a file would be decoded to other pixels
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000  # larger images are refused before they are decoded: a file of a few bytes can claim any size
PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

Size = tuple[int, int]  # height, width


def read_image(
    source: Path | BinaryIO | Image.Image,
    name: str = "",
    channels: int = 3,
    formats: tuple[str, ...] = IMAGE_FORMATS,
    size: Size | None = None,
    policy: str = "stretch",
) -> npt.NDArray[np.uint8]:
    """Returns the pixels of an image, uint8 (H, W, channels): 1 (grey), 3 (RGB) or 4 (RGBA) channels; resized to `size`.

    The EXIF orientation is applied, transparency becomes white (except in RGBA), 16 bits become 8, and of an animation the
    first frame is read. Raises DataError, which calls the image `name` (default: its path), if it is no image or too large.
    """
    name = name or str(source)
    try:
        with source.copy() if isinstance(source, Image.Image) else Image.open(source, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                size_text = f"{image.width}x{image.height}, more than {MAX_PIXELS // 10**6} million pixels"
                raise DataError(f"{name}: {size_text}; make it smaller")
            ImageOps.exif_transpose(image, in_place=True)
            converted: Image.Image = _to_8_bits(image) if channels == 4 else _flatten_alpha(image)
            if converted.mode != PIL_MODES[channels]:
                converted = converted.convert(PIL_MODES[channels])
            pixels = np.asarray(converted if size is None else resize_image(converted, size, policy))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # a warning may count as an error
        raise DataError(f"{name}: more than {MAX_PIXELS // 10**6} million pixels; make it smaller") from None
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder; name the files in it") from None
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, UnidentifiedImageError):
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


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Returns the image with 8 bits per channel."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def _flatten_alpha(image: Image.Image) -> Image.Image:
    """Returns the image with 8 bits per channel, on white instead of transparency."""
    image = _to_8_bits(image)
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
