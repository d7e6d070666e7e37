"""Damaged inputs of every kind, given to what reads them: `python mutations.py KIND SEED COUNT`.

Prints one line of JSON: how many were tried and refused, the longest in seconds, the memory above that before, in GiB. Each
must be read, or refused by an error of ours; anything else ends the process with a traceback.
"""

import io
import json
import os
import random
import re
import resource
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sprintnet.errors import SprintNetError

Case = Callable[[], object]
MAX_SECONDS, MAX_GIB = 10.0, 1.0


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Returns the content with one to four faults: flipped bits, cuts, repeated, removed, zeroed or random parts."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        if not data:
            break
        start = generator.randrange(len(data))
        end = min(len(data), start + generator.choice([1, 2, 4, 16, 256]))
        kind = generator.choice(["bit", "bit", "cut", "repeat", "remove", "zero", "random", "number"])
        if kind == "bit":
            data[start] ^= 1 << generator.randrange(8)
        elif kind == "cut":
            del data[start:]
        elif kind == "repeat":
            data[end:end] = data[start:end] * generator.choice([1, 2, 100])
        elif kind == "remove":
            del data[start:end]
        elif kind == "zero":
            data[start:end] = bytes(end - start)
        elif kind == "random":
            data[start:end] = generator.randbytes(end - start)
        else:
            data[start : start + 4] = struct.pack(">I", generator.choice([0, 1, 2**31 - 1, 2**32 - 1, 65536]))
    return bytes(data)


def images(generator: random.Random, folder: Path) -> Case:
    """Image files of all formats and modes, with text, EXIF data, transparency, frames; sums of PNG chunks put right or not."""
    from sprintnet.data.images import read_image

    colours = np.random.default_rng(generator.randrange(2**32)).integers(0, 256, (24, 17, 4), np.uint8)
    mode = generator.choice(["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
    image = Image.fromarray(colours).convert("RGBA")
    image = Image.fromarray(colours[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    formats = [form for form, modes in FORMATS.items() if mode in modes]
    form = generator.choice(formats)
    options: dict[str, Any] = {"exif": bytes([*b"Exif\0\0", *EXIF])} if generator.random() < 0.4 and form != "BMP" else {}
    if form == "PNG" and mode in ("L", "P", "RGB", "1") and generator.random() < 0.3:
        options["transparency"] = (1, 2, 3) if mode == "RGB" else 1
    if form == "WEBP":
        options |= {"lossless": generator.random() < 0.5}
    stream = io.BytesIO()
    image.save(stream, form, **options)
    content = mutate(stream.getvalue(), generator)
    if form == "PNG" and generator.random() < 0.5:
        content = _with_right_sums(content)
    channels = generator.choice([1, 3, 4])
    size = generator.choice([None, (8, 8)])
    return lambda: read_image(io.BytesIO(content), "image", channels, size=size)


FORMATS = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("RGB", "L", "P", "1", "RGBA"),
}
EXIF = b"II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x1a\x01\x05\0\x01\0\0\0\x26\0\0\0\0\0\0\0\x48\0\0\0\x01\0\0\0"


def _with_right_sums(content: bytes) -> bytes:
    """Returns a PNG whose chunks have right checksums, so that readers look at their content."""
    data, start = bytearray(content), 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[start + 4 : end]).to_bytes(4, "big")
        start = end + 4
    return bytes(data)


def _pictures(folder: Path) -> list[tuple[str, str]]:
    rows = [(f"{name}-{number}.png", name) for name in ("cat", "dog") for number in range(4)]
    for number, (path, _) in enumerate(rows):
        if not (folder / path).exists():
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / path)
    return rows


def tables(generator: random.Random, folder: Path) -> Case:
    """CSV and Parquet files of eight pictures."""
    rows = _pictures(folder)
    if generator.random() < 0.3:
        import pyarrow
        from pyarrow import parquet

        columns = dict(zip(("path", "label"), map(list, zip(*rows, strict=True)), strict=True))
        file, stream = folder / "a.parquet", io.BytesIO()
        parquet.write_table(pyarrow.table(columns), stream)
        content = stream.getvalue()
    else:
        separator = generator.choice([",", ";", "\t", "|"])
        text = "\n".join(map(separator.join, [("path", "label"), *rows]))
        file, content = folder / "a.csv", text.encode(generator.choice(["utf-8", "utf-8-sig", "utf-16"]))
    file.write_bytes(mutate(content, generator))
    return lambda: _load(file, skip_bad=generator.random() < 0.5)


def archives(generator: random.Random, folder: Path) -> Case:
    """NumPy archives: of both layouts, compressed or not, one-hot, text, floats; damaged as a file or as an array."""
    numbers = np.random.default_rng(generator.randrange(2**32))
    pixels = numbers.integers(0, 256, (12, 8, 8, 3), np.uint8)
    labels: Any = np.arange(12) % 3
    labels = generator.choice(
        [labels, np.eye(3)[labels], np.array(["a", "b", "c"])[labels], labels.astype(float), labels[:, None]]
    )
    floats = pixels.astype(np.float32) / 255
    shown = generator.choice([pixels, floats, pixels[..., 0]])
    arrays = generator.choice([{"images": shown, "labels": labels}, {"x_train": shown, "y_train": labels}])
    stream, file = io.BytesIO(), folder / "a.npz"
    generator.choice([np.savez, np.savez_compressed])(stream, **arrays)
    content = stream.getvalue()
    if generator.random() < 0.5:  # damage an array, in a sound archive
        import zipfile

        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(file, "w") as changed:
            for name in archive.namelist():
                changed.writestr(
                    name, mutate(archive.read(name), generator) if generator.random() < 0.6 else archive.read(name)
                )
    else:
        file.write_bytes(mutate(content, generator))
    return lambda: _load(file)


def _load(file: Path, **settings: Any) -> object:
    from sprintnet.data.custom.load import load_custom
    from sprintnet.data.settings import DataSettings

    return load_custom(DataSettings(str(file), **settings))


def settings(generator: random.Random, folder: Path) -> Case:
    """Recipes, and overrides, with damaged keys and values."""
    from sprintnet.config import load_config

    known = load_config("sprint94").to_toml()
    values = [
        "auto",
        "nan",
        "-1",
        "1e999",
        "0x" + "f" * 5000,
        "[" * 3000,
        "true",
        "''",
        "1,2",
        "\0",
        "9" * 5000,
        "é",
        "{a=1}",
        "",
    ]
    keys = [line.split(" = ")[0] for line in known.splitlines() if " = " in line]
    overrides = [f"{generator.choice(keys)}={generator.choice(values)}" for _ in range(generator.randint(0, 3))]
    file = folder / "a.toml"
    file.write_bytes(mutate(known.encode(), generator) if generator.random() < 0.7 else known.encode())
    return lambda: load_config(str(file), overrides)


def models(generator: random.Random, folder: Path) -> Case:
    """Exported files, the first of which SPRINTNET_MODEL names."""
    from sprintnet.deploy import predictor

    predictor.TRIAL_SECONDS = 2.0
    file = folder / "a.onnx"
    content = Path(os.environ["SPRINTNET_MODEL"]).read_bytes()
    (digest,) = set(re.findall(rb"(?<!_)sha256..?([0-9a-f]{64})", content, re.DOTALL))
    content = mutate(content.replace(digest, predictor.NO_DIGEST.encode()), generator)
    right = predictor.content_digest(content, predictor.NO_DIGEST)  # so that the damage itself is met, in three of four
    file.write_bytes(content.replace(predictor.NO_DIGEST.encode(), right.encode()) if generator.random() < 0.75 else content)
    picture = np.zeros((32, 32, 3), np.uint8)

    def predict() -> object:
        found = predictor.Predictor(file, threads=1)([picture, picture + 9]).probabilities
        assert np.isfinite(found).all()
        assert len(found) == 2
        return found

    return predict


KINDS = {"images": images, "tables": tables, "archives": archives, "settings": settings, "models": models}


def main() -> None:
    """Tries COUNT cases of a KIND, from SEED upwards."""
    kind, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    refused, slowest = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPRINTNET_CACHE"] = f"{folder}/cache"
        for number in range(seed, seed + count):
            case = KINDS[kind](random.Random(f"{kind} {number}"), Path(folder))
            if number == seed:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            started = time.monotonic()
            try:
                case()
            except SprintNetError as error:
                refused += 1
                assert 0 < len(str(error)) < 20_000, (number, len(str(error)))
            except BaseException:
                print(f"{kind} {number}", file=sys.stderr)
                raise
            slowest = max(slowest, time.monotonic() - started)
            assert slowest < MAX_SECONDS, (kind, number, slowest)
    gib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(json.dumps({"tried": count, "refused": refused, "slowest_seconds": round(slowest, 3), "more_gib": round(gib, 3)}))


if __name__ == "__main__":
    main()
