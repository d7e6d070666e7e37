"""Image files become pixels, in one way for training and for answering."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from sprintnet.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MOST_PIXELS = 64_000_000
"""More are refused before they are decoded: they would take a quarter of a gigabyte, and a few bytes can claim them."""
MODES = {1: "L", 3: "RGB"}


def read_image(
    source: Path | BinaryIO, name: str = "", channels: int = 3, formats: tuple[str, ...] = FORMATS
) -> npt.NDArray[np.uint8]:
    """Returns an image's pixels, uint8 (H, W, channels) of 1 (grey) or 3 (RGB) channels.

    Its orientation tag is obeyed, what is transparent lies on white, 16 bits become 8, and of an animation the first picture
    counts. Raises DataError, calling the image `name` (default: its path), for what is no image or too large.
    """
    name = name or str(source)
    try:
        with Image.open(source, formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(
                    f"{name}: {image.width}x{image.height}, more than {MOST_PIXELS // 10**6} million pixels; make it smaller"
                )
            pixels = np.asarray(_opaque(ImageOps.exif_transpose(image)).convert(MODES[channels]))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # a warning may count as an error
        raise DataError(f"{name}: more than {MOST_PIXELS // 10**6} million pixels; make it smaller") from None
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder; name the files in it") from None
    except Exception as error:  # a damaged file can make its decoder raise anything
        if isinstance(error, UnidentifiedImageError):
            cause = "it is none of these"
        else:
            cause = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        kinds = ", ".join(formats)
        raise DataError(f"{name}: cannot be read as an image ({kinds}): {cause}; repair or remove it") from None
    return pixels.reshape(*pixels.shape[:2], channels)


def _opaque(image: Image.Image) -> Image.Image:
    """Returns the image with 8 bits a channel and no transparency."""
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow would clip them to 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
