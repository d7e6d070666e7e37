"""A server that answers as an exported file does: an HTTP interface, and a page to try it."""

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import python_multipart  # noqa: F401 (Starlette would miss it at the first form, not now)
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

from sprintnet.deploy.predictor import Predictions, Predictor
from sprintnet.deploy.serve.batching import Answer, Batcher, Upload
from sprintnet.deploy.serve.limits import LOCAL, Guard, Intake, Limits, Refused, punctual
from sprintnet.deploy.serve.site import BACKEND, PAGE, SHARED, describe, find_report, find_samples
from sprintnet.errors import DataError, SettingsError
from sprintnet.reporting.text.names import short

TOP = 5
MAX_CLASSES = 1000
MAX_NAME_LENGTH = 80
RAW = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
OF_REPORT = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
}
"""The report's script and style are inside it; it says itself, by its digest, which script may run."""


def serve(
    model: Path, host: str, port: int, hosts: Sequence[str] = (), origins: Sequence[str] = (), limits: Limits | None = None
) -> None:
    """Serves a model until SIGINT or SIGTERM; answers what it has taken by then, and returns.

    Raises SettingsError for a model that cannot be used or an address that cannot be had.
    """
    limits = limits or Limits()
    app = application(Predictor(model), (*LOCAL, host, *hosts), origins, limits)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        cause = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise SettingsError(f"--host {host} --port {port}: {cause}; choose another, such as --port 0 (any free one)") from None
    with listener:
        # an answer is sent in two pieces: the second would wait 40 ms until the client has confirmed the first
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = f"[{host}]" if ":" in host else host
        print(f"{model}: http://{address}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        _Server(_uvicorn(app, limits)).run([listener])


def application(predictor: Predictor, hosts: Sequence[str], origins: Sequence[str], limits: Limits) -> ASGIApp:
    """Returns the application: /predict, /health, /metadata, /openapi.json and the page."""
    service = _Service(predictor, limits)
    files = {"/": PAGE / "index.html", **{f"/{name}": PAGE / name for name in SHARED}, f"/{BACKEND}": PAGE / "server.js"}
    files |= {f"/samples/{file.name}": file for file in find_samples(predictor.path)}
    report = find_report(predictor.path)
    routes = [
        Route("/predict", service.predict, methods=["POST"]),
        Route("/health", service.health),
        Route("/metadata", service.metadata),
        Route("/openapi.json", service.openapi),
        *(Route(path, _file(file)) for path, file in files.items()),
        *([Route("/report.html", _file(report, OF_REPORT))] if report else []),
    ]
    cross_origin = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["POST"], allow_headers=["Content-Type"])
    answering = Starlette(
        routes=routes,
        middleware=[cross_origin] if origins else [],
        exception_handlers={Refused: _refused, ClientDisconnect: _gone, HTTPException: _http_error, Exception: _own_error},
        lifespan=service.running,
    )
    answering.router.redirect_slashes = False
    return Guard(answering, hosts, origins)


class _Service:
    """The answers of one server."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self.intake = Intake(limits)
        self.batcher = Batcher(predictor, limits.waiting)
        self.description = {**describe(predictor), "limits": {"body_bytes": limits.body_bytes, "images": limits.parts}}

    @contextlib.asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        """Predictions while the server runs."""
        work = asyncio.create_task(self.batcher.work())
        yield
        work.cancel()

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(self.description)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(json.loads((PAGE.parent / "openapi.json").read_text("utf-8")))

    async def predict(self, request: Request) -> Response:
        top, maps = self._query(request)
        body = await self.intake.receive(request)
        try:
            started = time.perf_counter()
            uploads = await self._uploads(request, bytes(body))
            answers = await self.batcher.answer(uploads)
        except DataError as error:
            raise Refused(422, "unusable_image", str(error)) from None
        finally:
            self.intake.release(body)
        images = [
            {"name": upload.name, "labels": self._labels(answer), "top": self._top(answer, top, maps)}
            for upload, answer in zip(uploads, answers, strict=True)
        ]
        return JSONResponse({"images": images, "milliseconds": round(1000 * (time.perf_counter() - started), 3)})

    def _query(self, request: Request) -> tuple[int, bool]:
        """Returns how many classes to name and whether to add their maps."""
        count, maps = request.query_params.get("top", str(TOP)), request.query_params.get("maps", "false")
        if not (count.isascii() and count.isdigit() and len(count) < 10 and 1 <= int(count) <= MAX_CLASSES):
            raise Refused(400, "bad_query", f"top: must be a number of classes from 1 to {MAX_CLASSES}")
        if maps not in ("true", "false"):
            raise Refused(400, "bad_query", "maps: must be true or false")
        if maps == "true" and "maps" not in self.predictor.outputs:
            raise Refused(400, "no_maps", "maps: this model answers none; export it with --outputs probabilities,logits,maps")
        return int(count), maps == "true"

    async def _uploads(self, request: Request, body: bytes) -> list[Upload]:
        """Returns the images of a body: the files of a form, or the one image that it is."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in RAW:
            return [Upload("image", body)]
        if kind != "multipart/form-data":
            wanted = ", ".join(("multipart/form-data", *RAW))
            raise Refused(415, "wrong_content_type", f"Content-Type: must be one of {wanted}")

        async def once() -> AsyncIterator[bytes]:
            yield body

        parser = MultiPartParser(request.headers, once(), max_files=self.limits.parts, max_fields=self.limits.parts)  # type: ignore[arg-type]
        parser.spool_max_size = len(body) + 1  # nothing that is uploaded goes to disk
        try:
            form = await parser.parse()
        except (MultiPartException, UnicodeError, LookupError) as error:  # a form names its own encoding
            cause = error.message if isinstance(error, MultiPartException) else "its names cannot be decoded"
            raise Refused(400, "unusable_form", f"the form: {cause}") from None
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        names = [short(file.filename or f"image {number}", MAX_NAME_LENGTH) for number, file in enumerate(files, 1)]
        uploads = [Upload(name, await file.read()) for name, file in zip(names, files, strict=True)]
        await form.close()
        if not uploads:
            raise Refused(400, "no_image", "the form: holds no file; send one or more images as files")
        return uploads

    def _labels(self, answer: Answer) -> list[dict[str, Any]]:
        """Returns the classes of the answer, the likeliest first: one, or of a multi-label network any number."""
        found = Predictions(self.predictor.classes, answer.probabilities[None], None, None, self.predictor.threshold)
        return [{"class": label, "probability": probability} for label, probability in found.label_sets[0]]

    def _top(self, answer: Answer, count: int, with_maps: bool) -> list[dict[str, Any]]:
        """Returns the likeliest classes, each with its probability and, if asked for, its map."""
        found = []
        for index in np.argsort(-answer.probabilities, kind="stable")[:count]:
            entry: dict[str, Any] = {"class": self.predictor.classes[index], "probability": float(answer.probabilities[index])}
            if with_maps and answer.maps is not None:
                entry["map"] = np.round(answer.maps[index].astype(float), 5).tolist()
            found.append(entry)
        return found


class _Server(uvicorn.Server):
    """Ends by a signal as a success: it has finished what it was given."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        def end(number: int, frame: FrameType | None) -> None:
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _uvicorn(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=punctual(limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(limits.receive_seconds) + 10,
    )


def _file(path: Path, headers: dict[str, str] | None = None) -> Any:
    async def send(request: Request) -> Response:
        return FileResponse(path, headers=headers)

    return send


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


async def _gone(request: Request, error: Exception) -> Response:
    """Returns what nobody will read: the client went away while it sent."""
    return Response(status_code=400)


async def _http_error(request: Request, error: Exception) -> Response:
    """Returns 404 or 405 as JSON."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "error")
    return JSONResponse({"error": {"code": code, "message": error.detail}}, error.status_code, error.headers)


async def _own_error(request: Request, error: Exception) -> Response:
    """Returns 500 without a word of what went wrong, which the log holds."""
    return JSONResponse({"error": {"code": "internal", "message": "the server failed; its log says why"}}, 500)
