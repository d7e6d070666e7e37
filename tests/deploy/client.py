"""Requests and responses of a test client."""

import io

import httpx
from PIL import Image

from conftest import SAMPLE

FILES = sorted((SAMPLE / "test").glob("*/*.png"))[::10]
PNG = {"Content-Type": "image/png"}
CLIENT = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def slow_image() -> bytes:
    """A PNG that takes a good part of a second to predict."""
    return encoded(Image.new("RGB", (3900, 3900)))


def send(url: str, content: bytes, query: str = "", **headers: str) -> httpx.Response:
    return CLIENT.post(f"{url}/predict{query}", content=content, headers={**PNG, **headers})


def error(response: httpx.Response) -> tuple[int, str, str]:
    found = response.json()["error"]
    return response.status_code, found["code"], found["message"]
