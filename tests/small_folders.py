"""Small folders of images of one colour but for a pixel, and how they are read."""

from pathlib import Path

import pytest
from PIL import Image

from sprintnet.data.custom.load import CustomData, load_custom
from sprintnet.data.settings import DataSettings
from sprintnet.errors import DataError


def write(path: Path, size: tuple[int, int] = (8, 8), colour: int = 0, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, (colour, 0, 255) if mode == "RGB" else colour)
    if min(size) > 1:  # not of one colour throughout, which is noted
        image.putpixel((size[0] - 1, size[1] - 1), (colour, 9, 255) if mode == "RGB" else colour ^ 1)
    image.save(path)
    return path


def read(path: Path, **settings: object) -> CustomData:
    return load_custom(DataSettings(str(path), **settings))  # type: ignore[arg-type]


def message(path: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **settings)
    return str(caught.value)
