"""Image files become pixels, in one way for training and for answering."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from sprintnet.errors import AccessError, DataError

DECODER_VERSION = 1
"""To be raised whenever other pixels come from the same file: decoded pictures are kept under it."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000
"""More are refused before they are decoded: they would take a quarter of a gigabyte, and a few bytes can claim them."""
PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
RESIZE_POLICIES = ("stretch", "letterbox", "crop")
"""How a picture of another shape is brought to the network's: its sides stretched; made to fit, with black beside it; its
middle cut out."""

Size = tuple[int, int]
"""Height, width."""


def read_image(
    source: Path | BinaryIO | Image.Image,
    name: str = "",
    channels: int = 3,
    formats: tuple[str, ...] = IMAGE_FORMATS,
    size: Size | None = None,
    policy: str = "stretch",
) -> npt.NDArray[np.uint8]:
    """Returns an image's pixels, uint8 (H, W, channels) of 1 (grey), 3 (RGB) or 4 (RGBA) channels, of a size if one is given.

    Its orientation tag is obeyed, what is transparent lies on white (but for RGBA), 16 bits become 8, and of an animation the
    first picture counts. Raises DataError, calling the image `name` (default: its path), for what is no image or too large.
    """
    name = name or str(source)
    try:
        with source.copy() if isinstance(source, Image.Image) else Image.open(source, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{name}: {image.width}x{image.height}, more than {MAX_PIXELS // 10**6} million pixels; make it smaller"
                )
            ImageOps.exif_transpose(image, in_place=True)
            whole: Image.Image = _to_8_bits(image) if channels == 4 else _flatten_alpha(image)
            if whole.mode != PIL_MODES[channels]:
                whole = whole.convert(PIL_MODES[channels])
            pixels = np.asarray(whole if size is None else resize_image(whole, size, policy))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # a warning may count as an error
        raise DataError(f"{name}: more than {MAX_PIXELS // 10**6} million pixels; make it smaller") from None
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder; name the files in it") from None
    except Exception as error:  # a damaged file can make its decoder raise anything
        if isinstance(error, UnidentifiedImageError):
            cause = "it is none of these"
        else:
            cause = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise AccessError(f"{name}: cannot be read: {cause}; make it readable, or remove it") from None
        kinds = ", ".join(formats)
        raise DataError(f"{name}: cannot be read as an image ({kinds}): {cause}; repair or remove it") from None
    return pixels.reshape(*pixels.shape[:2], channels)


def convert_pixels(pixels: npt.NDArray[np.uint8], shape: tuple[int, int, int], policy: str) -> npt.NDArray[np.uint8]:
    """Returns pixels uint8 (H, W, C) in another shape (height, width, channels), as `read_image` would."""
    if pixels.shape == shape:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    converted = (image if shape[2] == 4 else _flatten_alpha(image)).convert(PIL_MODES[shape[2]])
    return np.asarray(resize_image(converted, shape[:2], policy)).reshape(shape)


def resize_image(image: Image.Image, size: Size, policy: str) -> Image.Image:
    """Returns the image resized by one of RESIZE_POLICIES; bilinear and antialiased, as in an exported file."""
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
    if image.mode == "RGBA":  # each channel by itself; Pillow would weigh colours by their opacity
        return Image.merge("RGBA", [_resized(band, size) for band in image.split()])
    return image.resize(size[::-1], Image.Resampling.BILINEAR)


def center_crop_box(image: Size, size: Size) -> tuple[int, int, int, int]:
    """Returns the largest box (left, upper, right, lower) of a size's proportions in the middle of an image."""
    height = min(image[0], max(1, image[1] * size[0] // size[1]))
    width = min(image[1], max(1, image[0] * size[1] // size[0]))
    upper, left = (image[0] - height) // 2, (image[1] - width) // 2
    return left, upper, left + width, upper + height


def letterbox_size(image: Size, size: Size) -> Size:
    """Returns the largest height and width of an image's proportions that fit into a size."""
    return (
        min(size[0], max(1, image[0] * size[1] // image[1])),
        min(size[1], max(1, image[1] * size[0] // image[0])),
    )


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Returns the image with 8 bits a channel."""
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow would clip them to 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def _flatten_alpha(image: Image.Image) -> Image.Image:
    """Returns the image with 8 bits a channel and no transparency."""
    image = _to_8_bits(image)
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
