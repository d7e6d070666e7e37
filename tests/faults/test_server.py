"""The server under good and bad requests from 64 clients at once: no failure, quick answers, bounded memory, a clean end."""

import asyncio
import random
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from conftest import SAMPLE
from faults.mutations import mutate
from faults.soak import IS_SOAK, record
from images import claiming

CLIENTS, SECONDS = 64, 60 if IS_SOAK else 4
MAX_MIB, MAX_SECONDS = 300, 1.0
GOOD = [file.read_bytes() for file in sorted((SAMPLE / "test").rglob("*.png"))[:20]]


def large(side: int) -> bytes:
    """A sound PNG of one colour with so many pixels."""
    rows = zlib.compress((b"\0" + bytes(3 * side)) * side, 1)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    framed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


BOMBS = [claiming(7999, 7999), claiming(1, 64_000_000), large(3900), large(3000), GOOD[0] * 2000]


def post(body: bytes, kind: str = "image/png", more: str = "", target: str = "/predict") -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode("latin-1") + body


def bad(generator: random.Random) -> bytes:
    """A request that is wrong in one of many ways."""
    body = generator.choice(GOOD)
    form = b'--x\r\nContent-Disposition: form-data; name="i"; filename="a.png"\r\n\r\n' + body + b"\r\n--x--\r\n"
    return generator.choice(
        [
            post(mutate(body, generator)),
            post(generator.choice(BOMBS)),
            post(mutate(form, generator), "multipart/form-data; boundary=x"),
            post(form, "multipart/form-data"),
            post(body, "text/plain"),
            post(body, more="X: " + "y" * generator.choice([10, 100_000]) + "\r\n"),
            post(body, more="Host: evil\r\n"),
            post(body, target="/predict?top=" + generator.choice(["0", "-1", "9" * 400, "%00"])),
            post(body, target=generator.choice(["/", "/../../etc/passwd", "/%ff", "/metadata"])),
            mutate(post(body), generator),
            generator.randbytes(200),
            b"GET / HTTP/1.1\r\n\r\n",
            post(body)[:-10],
        ]
    )


async def exchange(port: int, request: bytes, patience: float = 20) -> int:
    """Returns the status of the response, 0 where the server closes without one or needs more seconds than the patience."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        line = await asyncio.wait_for(reader.readline(), patience)
        return int(line.split(maxsplit=2)[1]) if line.startswith(b"HTTP/1.1 ") else 0
    except (ConnectionError, TimeoutError, ValueError):
        return 0
    finally:
        writer.close()


async def abuse(port: int) -> tuple[Counter[int], Counter[int], list[float]]:
    """Returns the status codes of good and of bad requests, and the seconds of the good ones that were answered."""
    end = time.monotonic() + SECONDS
    good_codes: Counter[int] = Counter()
    bad_codes: Counter[int] = Counter()
    waited: list[float] = []

    async def client(number: int) -> None:
        generator = random.Random(number)
        while time.monotonic() < end:
            if generator.random() < 0.5:
                begun = time.monotonic()
                code = await exchange(port, post(generator.choice(GOOD), more="Connection: close\r\n"))
                good_codes[code] += 1
                if code == 200:
                    waited.append(time.monotonic() - begun)
            else:
                bad_codes[await exchange(port, bad(generator), patience=1)] += 1

    await asyncio.gather(*map(client, range(CLIENTS)))
    return good_codes, bad_codes, waited


def memory(process: "subprocess.Popen[str]", line: str = "VmRSS") -> float:
    found = re.search(rf"{line}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_good_requests_are_answered_whatever_else_is_sent(small_model: Path, request: pytest.FixtureRequest) -> None:
    command = [sys.executable, "-m", "sprintnet", "serve", str(small_model), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    request.addfinalizer(process.kill)
    assert process.stdout
    port = int(re.search(r":(\d+) ", process.stdout.readline())[1])  # type: ignore[index]
    before = memory(process)
    with ThreadPoolExecutor(1) as thread:  # a browser of other tests has a loop in this one
        good, wrong, waited = thread.submit(asyncio.run, abuse(port)).result()
    peak, after = memory(process, "VmHWM"), memory(process)
    assert process.poll() is None
    assert good.keys() <= {200, 503}, good
    assert not [code for code in wrong if code >= 500 and code != 503], wrong
    assert good[200] > good[503]
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process.stdout.close()
    slowest = max(waited)
    counts = {
        "good": dict(good),
        "bad": dict(wrong),
        "slowest_seconds": round(slowest, 2),
        "median_seconds": sorted(waited)[len(waited) // 2],
    }
    record("server", seconds=SECONDS, clients=CLIENTS, **counts, mib={"before": before, "peak": peak, "after": after})
    assert peak < MAX_MIB
    if IS_SOAK:  # elsewhere other tests keep the cores busy
        assert slowest < MAX_SECONDS
