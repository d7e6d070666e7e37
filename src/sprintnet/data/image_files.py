"""Image files before their pixels are decoded: formats and suffixes, the orientation, what is refused or left out."""

import contextlib
import io
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, features

from sprintnet.errors import DataError

MAX_FILE_BYTES = 1 << 29
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp")
AVIF_SUFFIXES = {".avif": "AVIF"} if features.check("avif") else {}  # Pillow has it from 11.3 on, where it was built with it
IMAGE_SUFFIXES = {
    **{".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".dib": "BMP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF"},
    **dict.fromkeys(JPEG_SUFFIXES, "JPEG"),
    **AVIF_SUFFIXES,
}
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", *AVIF_SUFFIXES.values())

OTHER_SIGNATURES = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"%PDF": "PDF",
    b"\0\0\1\0": "ICO",
    b"8BPS": "PSD",
}
OTHER_BRANDS = {
    b"ftypavif": "AVIF",
    b"ftypavis": "AVIF",
    b"ftypheic": "HEIC",
    b"ftypmif1": "HEIF",
    b"jP  \r\n\x87\n": "JPEG 2000",
}
"""How files of formats that are not read everywhere begin, and how they go on after four bytes."""
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


def open_image(source: Path | BinaryIO, formats: tuple[str, ...] = IMAGE_FORMATS) -> Image.Image:
    """Returns an image whose pixels are not decoded yet. Of the other content of a PNG only the orientation is looked at.

    Raises DataError for what is no regular file, and for thousands of empty parts; else what reading and Pillow raise.
    """
    content = _read(source) if isinstance(source, Path) else source.read()
    if content.startswith(JPEG_SIGNATURE):
        _check_jpeg(content)
    elif content.startswith(PNG_SIGNATURE):
        content = _pixels_of_png(content)
    return Image.open(io.BytesIO(content), formats=formats)


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


def _pixels_of_png(content: bytes) -> bytes:
    """Returns a PNG without the chunks that change no pixel; raises DataError for thousands of empty chunks."""
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


def other_format(source: Any, formats: tuple[str, ...]) -> str:
    """Returns the name of a file's format where it is a known one and none of those that are read."""
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
    found = next((name for bytes_, known in beginnings for sign, name in known.items() if bytes_.startswith(sign)), "")
    return "" if found in formats else found
