"""What a server accepts: hosts, origins, sizes, time limits; everything else is refused with a JSON message."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
HOST = re.compile(r"(?:(?P<name>[\w.-]+)|\[(?P<address>[0-9a-f:.]+)\])(?::[0-9]{1,5})?", re.ASCII)
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
BUSY = (503, "busy", "too many requests at once; retry in a second")
DRAIN_FACTOR = 8
"""A body is read up to this many times its limit: a client that is still sending would not receive the refusal."""


@dataclass(frozen=True)
class Limits:
    """Limits of one request and of all requests together."""

    body_bytes: int = 20_000_000
    parts: int = 64
    """Files, and fields, of one form."""
    timeout_seconds: float = 10.0
    """For a request's headers, for its body, and for a client that does not read the response."""
    queued_requests: int = 64
    pixels: int = 16_000_000
    """Of all images of one request, together: decoding takes memory and seconds in proportion."""
    small_pixels: int = 2_000_000
    small_bytes: int = 1_000_000
    """Requests with more pixels or bytes of images wait for each other, not the others for them."""
    large_requests: int = 8
    """How many of those may wait."""
    headers: int = 100
    buffered_bytes: int = 100_000_000
    """Of all bodies being received or processed; parsing a form makes copies."""
    connections: int = 512


class Refused(HTTPException):
    """A request that is refused: a status, a code for programs, a message for people."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(status, message, {"Retry-After": "1"} if status == 503 else None)
        self.code = code

    def response(self) -> JSONResponse:
        """Returns the JSON response."""
        return JSONResponse({"error": {"code": self.code, "message": self.detail}}, self.status_code, self.headers)


class BodyReader:
    """Receives request bodies within the limits; counts the bytes of those in use."""

    def __init__(self, limits: Limits):
        self.limits, self.buffered_bytes = limits, 0

    @contextlib.asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytearray]:
        """Provides the body for the length of a `with` block; raises Refused if it is too large or too slow."""
        limits, body, received = self.limits, bytearray(), 0
        try:
            async with asyncio.timeout(limits.timeout_seconds):
                async for chunk in request.stream():
                    received += len(chunk)
                    if received > DRAIN_FACTOR * limits.body_bytes:
                        break
                    if received <= limits.body_bytes:
                        if self.buffered_bytes + len(chunk) > limits.buffered_bytes:
                            raise Refused(*BUSY)
                        body += chunk
                        self.buffered_bytes += len(chunk)
            if received > limits.body_bytes:
                raise Refused(413, "too_large", f"body: more than {limits.body_bytes:,} bytes; send fewer or smaller images")
            yield body
        except TimeoutError:
            raise Refused(408, "too_slow", f"body: not received within {limits.timeout_seconds:g} s; send it at once") from None
        finally:
            self.buffered_bytes -= len(body)


class OriginGuard:
    """Middleware that refuses other hosts and origins and adds security headers to each response. Without it any web
    page could use a visitor's browser to reach a server on the visitor's own machine (DNS rebinding)."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str], max_headers: int):
        self.app, self.hosts, self.origins = app, {host.lower() for host in hosts}, set(origins)
        self.max_headers = max_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope) if scope["type"] == "http" else None
        await (refused.response() if refused else self.app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Refused | None:
        headers = Headers(scope=scope)
        if len(scope["headers"]) > self.max_headers:
            return Refused(431, "too_many_headers", f"headers: {len(scope['headers'])}; send at most {self.max_headers}")
        host, origin = headers.get("host", ""), headers.get("origin")
        found = HOST.fullmatch(host.lower())
        is_known = found is not None and (found["name"] or found["address"]) in self.hosts
        if not is_known and scope["path"] != "/health":  # which says nothing of the model; orchestrators ask by address
            return Refused(421, "wrong_host", "Host: not a name of this server; allow it with --allow-host NAME")
        if origin is not None and origin not in self.origins and origin not in (f"http://{host}", f"https://{host}"):
            return Refused(403, "wrong_origin", "Origin: not this server's page; allow it with --allow-origin ORIGIN")
        return None


def limited_protocol(limits: Limits) -> Any:
    """Returns HTTP/1.1 with limits that uvicorn lacks: on the number of connections, on the time for the headers of a request
    and on the time for reading a response."""

    class LimitedProtocol(H11Protocol):
        headers_timer: asyncio.TimerHandle
        is_ending = False  # of the class: whether each connection ends with its next response
        reading_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.close()
            self.headers_timer = self.abort_later()

        def handle_events(self) -> None:
            super().handle_events()
            if self.is_ending and self.cycle is not None:
                self.cycle.keep_alive = False
            if self.cycle is not None and not self.cycle.response_complete:  # the headers are complete
                self.headers_timer.cancel()

        def on_response_complete(self) -> None:
            self.headers_timer.cancel()
            self.headers_timer = self.abort_later()  # for the next request
            super().on_response_complete()

        def pause_writing(self) -> None:
            self.reading_timer = self.abort_later()
            super().pause_writing()

        def resume_writing(self) -> None:
            if self.reading_timer:
                self.reading_timer.cancel()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self.headers_timer.cancel()
            if self.reading_timer:
                self.reading_timer.cancel()
            super().connection_lost(exc)

        def abort_later(self) -> asyncio.TimerHandle:
            return self.loop.call_later(limits.timeout_seconds, self.transport.abort)

    return LimitedProtocol
