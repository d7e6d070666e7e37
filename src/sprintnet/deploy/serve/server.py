"""An HTTP server for an exported file: an interface for programs and a page for people."""

import asyncio
import contextlib
import errno
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import python_multipart  # noqa: F401 (else Starlette would fail at the first form, not now)
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sprintnet.deploy.predictions import Predictions
from sprintnet.deploy.predictor import Predictor, entries
from sprintnet.deploy.serve.batching import STUCK, Batcher, Decoder, Upload
from sprintnet.deploy.serve.limits import LOCAL_HOSTS, BodyReader, Limits, OriginGuard, Refused, limited_protocol
from sprintnet.deploy.serve.site import BACKEND, PAGE, SHARED, describe, find_report, find_samples
from sprintnet.errors import ArgumentError, DataError
from sprintnet.reporting.text.names import short

DEFAULT_TOP = 5
END_SECONDS = 0.5  # between the signal and the end of listening
MAX_TOP = 1000
QUERY = ("top", "activation_maps", "coverage")
MAX_NAME_LENGTH = 80
RAW_TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
ADDRESSES = "use POST /predict, or GET /health, /metadata, /openapi.json or / (the page)"
REPORT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
}
"""The report's style and script are inline; its own policy allows that one script by its digest."""


def serve(
    model: Path, host: str, port: int, hosts: Sequence[str] = (), origins: Sequence[str] = (), limits: Limits | None = None
) -> None:
    """Serves a model until SIGINT or SIGTERM, then completes open requests; raises SettingsError at the start."""
    limits = limits or Limits()
    app = application(Predictor(model), (*LOCAL_HOSTS, host, *hosts), origins, limits)
    with listen(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        print(f"{model}: http://{address}:{listener.getsockname()[1]} (stop with Ctrl-C)", flush=True)
        patience = int(limits.timeout_seconds) + 10
        config = uvicorn.Config(
            app, http=limited_protocol(limits), ws="none", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=patience,
        )  # fmt: skip
        _Server(config).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; raises ArgumentError for an address that cannot be used."""
    if not host.strip():
        raise ArgumentError("host", host, "must be an address; 127.0.0.1: this machine only, 0.0.0.0: the network too")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        cause = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        if isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
            raise ArgumentError("host", host, f"{cause}; use 127.0.0.1 (this machine only) or 0.0.0.0") from None
        raise ArgumentError("port", port, f"{cause} (host {host}); choose another, such as 0 (any free port)") from None
    # a response is sent in two packets: without NODELAY the second waits 40 ms for the client's acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _Server(uvicorn.Server):
    """Predicts what has arrived before it ends, and returns after SIGINT or SIGTERM, where uvicorn would raise it again."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.http_protocol_class.is_ending = True  # type: ignore[attr-defined]
        await asyncio.sleep(END_SECONDS)  # connections and requests that the system has accepted are still read
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def application(predictor: Predictor, hosts: Sequence[str], origins: Sequence[str], limits: Limits) -> ASGIApp:
    """Returns the application: /predict, /health, /metadata, /openapi.json and the page."""
    endpoints = _Endpoints(predictor, limits)
    files = {"/": PAGE / "index.html", **{f"/{name}": PAGE / name for name in SHARED}, f"/{BACKEND}": PAGE / "server.js"}
    files |= {f"/samples/{file.name}": file for file in find_samples(predictor.path)}
    report = find_report(predictor.path)
    facts = {
        "metadata": {
            **describe(predictor),
            "limits": {"body_bytes": limits.body_bytes, "images": limits.parts, "pixels": limits.pixels},
        },
        "openapi.json": json.loads((PAGE.parent / "openapi.json").read_text("utf-8")),
    }
    routes = [
        Route("/predict", endpoints.predict, methods=["POST"]),
        Route("/health", endpoints.health, methods=["GET"]),
        *(Route(f"/{name}", JSONResponse(content), methods=["GET"]) for name, content in facts.items()),
        *(Route(path, _file(file)) for path, file in files.items()),
        *([Route("/report.html", _file(report, REPORT_HEADERS))] if report else []),
    ]
    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["POST"], allow_headers=["Content-Type"])
    app = Starlette(
        routes=routes,
        middleware=[cors] if origins else [],
        exception_handlers={ClientDisconnect: _disconnected, HTTPException: _http_error, Exception: _internal_error},
        lifespan=endpoints.lifespan,
    )
    app.router.redirect_slashes = False
    return OriginGuard(app, hosts, origins, limits.headers)


class _Endpoints:
    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self.bodies = BodyReader(limits)
        self.decoder, self.batcher = Decoder(predictor, limits), Batcher(predictor, limits.queued_requests)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(self.batcher.work())
        yield
        work.cancel()

    async def health(self, request: Request) -> Response:
        if not self.batcher.is_alive:
            raise Refused(*STUCK)
        return JSONResponse({"status": "ok"})

    async def predict(self, request: Request) -> Response:
        top, with_maps, coverage = self._query(request)
        async with self.bodies.receive(request) as body:
            started = time.perf_counter()
            uploads = await self._uploads(request, bytes(body))
            try:
                predictions = await self.batcher.predict(await self.decoder.decode(uploads))
            except DataError as error:
                raise Refused(422, "unusable_image", str(error)) from None
        answers = zip(predictions.labels, predictions.unsure, strict=True)
        columns: dict[str, Iterable[Any]] = {
            "file": [upload.name for upload in uploads],
            "predicted": [None if unsure else label for label, unsure in answers],
            "confidence": predictions.confidences.tolist(),
            "labels": map(entries, predictions.label_sets),
            "top": _top(predictions, top, with_maps),
        }
        if (typicality := predictions.typicality) is not None:
            columns["typicality"] = typicality.tolist()
        if coverage:
            columns["set"] = map(entries, predictions.sets(coverage))
        images = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        return JSONResponse({"images": images, "milliseconds": round(1000 * (time.perf_counter() - started), 3)})

    def _query(self, request: Request) -> tuple[int, bool, float]:
        """Returns how many classes to name, whether with their activation maps, and the coverage of sets; 0: no sets."""
        if unknown := sorted(set(request.query_params) - set(QUERY)):
            raise Refused(
                400, "bad_query", f"{short(unknown[0], MAX_NAME_LENGTH)}: is not known; the query may have {', '.join(QUERY)}"
            )
        count, maps = request.query_params.get("top", str(DEFAULT_TOP)), request.query_params.get("activation_maps", "false")
        if not (re.fullmatch("[0-9]{1,9}", count) and 1 <= int(count) <= MAX_TOP):
            raise Refused(400, "bad_query", f"top: must be a number of classes from 1 to {MAX_TOP}")
        if maps not in ("true", "false"):
            raise Refused(400, "bad_query", "activation_maps: must be true or false")
        if maps == "true" and "activation_maps" not in self.predictor.outputs:
            remedy = "export it with --outputs probabilities,logits,activation_maps"
            raise Refused(400, "no_activation_maps", f"activation_maps: this model has none; {remedy}")
        asked = request.query_params.get("coverage")
        try:
            coverage = 0.0 if asked is None else float(asked)
            if asked is not None:
                self.predictor.require_sets(coverage)
        except ArgumentError as error:
            raise Refused(400, "bad_query", str(error)) from None
        except ValueError:
            raise Refused(400, "bad_query", "coverage: must be a number between 0 and 1, such as 0.9") from None
        return int(count), maps == "true", coverage

    async def _uploads(self, request: Request, body: bytes) -> list[Upload]:
        """Returns the images of a request: the files of a form, or the one image that is the body."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "wrong_content_encoding", "Content-Encoding: must be identity; send the image as it is")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in RAW_TYPES:
            return [Upload("image", body)]
        if kind != "multipart/form-data":
            allowed = ", ".join(("multipart/form-data", *RAW_TYPES))
            raise Refused(415, "wrong_content_type", f"Content-Type: must be one of {allowed}")

        async def once() -> AsyncIterator[bytes]:
            yield body

        parser = MultiPartParser(request.headers, once(), max_files=self.limits.parts, max_fields=self.limits.parts)  # type: ignore[arg-type]
        parser.spool_max_size = len(body) + 1  # no upload is written to disk
        try:
            form = await parser.parse()
        except (MultiPartException, UnicodeError, LookupError) as error:  # a form names its own encoding
            cause = error.message if isinstance(error, MultiPartException) else "its names cannot be decoded"
            raise Refused(400, "unusable_form", f"form: {cause}") from None
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        names = [short(file.filename or f"image {number}", MAX_NAME_LENGTH) for number, file in enumerate(files, 1)]
        uploads = [Upload(name, await file.read()) for name, file in zip(names, files, strict=True)]
        await form.close()
        if not uploads:
            raise Refused(400, "no_image", "form: contains no file; send one or more images as files")
        return uploads


def _top(predictions: Predictions, count: int, with_maps: bool) -> Iterator[list[dict[str, Any]]]:
    """Yields each image's most probable classes with their probabilities and, `with_maps`, their activation maps."""
    maps = predictions.activation_maps if with_maps else None
    for index, best in enumerate(predictions.top(count)):
        found = entries(best)
        if maps is not None:
            for entry, k in zip(found, np.argsort(-predictions.probabilities[index], kind="stable"), strict=False):
                entry["activation_map"] = np.round(maps[index, k].astype(float), 5).tolist()
        yield found


def _file(path: Path, headers: dict[str, str] | None = None) -> Any:
    async def send(request: Request) -> Response:
        return FileResponse(path, headers=headers)

    return send


async def _disconnected(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _http_error(request: Request, error: Exception) -> Response:
    """Returns a refusal, 404 or 405 as JSON."""
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return error.response()
    code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "error")
    response = Refused(error.status_code, code, f"{error.detail}; {ADDRESSES}").response()
    response.headers.update(error.headers or {})  # Allow, of 405
    return response


async def _internal_error(request: Request, error: Exception) -> Response:
    """Returns 500 without the cause, which the log contains."""
    return Refused(500, "internal", "the server failed; its log contains the cause").response()
