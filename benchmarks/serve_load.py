"""Measures a server of an exported model under load and appends a row to benchmarks/results/serve.jsonl.

    python benchmarks/serve_load.py runs/train/sprint94/export/model.onnx image.png

Starts the server; its clients share its cores. Each client keeps one connection and sends its next request when the last one is
answered. Also measures the server's memory over many requests, and an overload of three times the rate that it can answer.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
CLIENTS = (1, 8, 64)
OVERLOADING = 256
"""Clients of the overload: more than the server's queue holds."""
CLOCK = (
    "from the first byte of a request sent to the last byte of its response received; answered (200) and refused (503) apart"
)


class Load:
    """The requests still to send, and statuses and latencies of the others."""

    def __init__(self, port: int, image: bytes, requests: int, rate: float = float("inf")):
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
        self.port, self.request = port, head.encode() + image
        self.left, self.seconds_apart, self.next_time = requests, 1 / rate, 0.0
        self.statuses: Counter[int] = Counter()
        self.seconds: dict[int, list[float]] = {}

    async def run(self, clients: int) -> dict[str, Any]:
        """Returns rates, latencies and statuses with this many clients."""
        self.next_time = started = time.perf_counter()
        await asyncio.gather(*(self._client() for _ in range(clients)))
        wall = time.perf_counter() - started
        found: dict[str, Any] = {"clients": clients, "seconds": wall, "statuses": dict(self.statuses)}
        for status, seconds in self.seconds.items():
            name = {200: "answered", 503: "refused"}.get(status, str(status))
            milliseconds = 1000 * np.array(seconds)
            found |= {
                f"{name}_per_second": len(seconds) / wall,
                f"{name}_ms_p50": float(np.quantile(milliseconds, 0.5)),
                f"{name}_ms_p99": float(np.quantile(milliseconds, 0.99)),
                f"{name}_ms_longest": float(milliseconds.max()),
            }
        return found

    async def _client(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while self.left:
            self.left -= 1
            self.next_time += self.seconds_apart
            if (early := self.next_time - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            started = time.perf_counter()
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
            status = int(head.split()[1])
            self.statuses[status] += 1
            self.seconds.setdefault(status, []).append(time.perf_counter() - started)
        writer.close()
        await writer.wait_closed()


def memory(process: subprocess.Popen[str]) -> float:
    """Returns the resident memory of a process in MiB (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def measure(model: str, image: bytes, requests: int, memory_requests: int) -> dict[str, Any]:
    """Returns the row: load for each number of clients, memory, overload."""
    command = [sys.executable, "-m", "sprintnet", "serve", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            port = int(re.search(r":(\d+) ", server.stdout.readline())[1])  # type: ignore[index]

            def load(clients: int, requests: int, rate: float = float("inf")) -> dict[str, Any]:
                found = asyncio.run(Load(port, image, requests, rate).run(clients))
                print(found, flush=True)
                return found

            load(8, 200)  # warm
            by_clients = [load(clients, requests) for clients in CLIENTS]
            megabytes = [memory(server)]
            for _ in range(10):
                load(8, memory_requests // 10)
                megabytes.append(memory(server))
            most = max(entry["answered_per_second"] for entry in by_clients)
            overload = {**load(OVERLOADING, 3 * requests, 3 * most), "mib_after": memory(server)}
        finally:
            server.terminate()
    return {
        "model": Path(model).name,
        "image_bytes": len(image),
        "load": by_clients,
        "memory": {"requests": memory_requests, "mib": megabytes},
        "overload": {"offered_per_second": 3 * most, **overload},
        "exit_code": server.returncode,
        "clock": CLOCK,
    }


def main() -> None:
    """Measures, prints and appends the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported file")
    parser.add_argument("image", type=Path, help="the PNG file of every request")
    parser.add_argument("--requests", type=int, default=5000, help="requests for each number of clients (default: 5000)")
    parser.add_argument("--memory-requests", type=int, default=50_000, help="requests of the memory test (default: 50000)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    row = measure(options.model, options.image.read_bytes(), options.requests, options.memory_requests)
    append_row(options.output, row)
    print("memory, MiB:", *(f"{value:.1f}" for value in row["memory"]["mib"]))


if __name__ == "__main__":
    main()
