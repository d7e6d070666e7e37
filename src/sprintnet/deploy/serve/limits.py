"""What a server takes: whose requests, how many bytes, for how long; everything else is refused by a JSON message."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Names under which a browser on this machine finds the server."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
DRAINED = 8
"""A body too large is read on to so many times the limit and forgotten: a client that still sends would miss the answer."""


@dataclass(frozen=True)
class Limits:
    """How much one request, and all of them together, may take."""

    body_bytes: int = 20_000_000
    parts: int = 64
    receive_seconds: float = 10.0
    """From the connection to its last header, again to the last byte of the body, and for which an answer may lie unread."""
    waiting: int = 64
    """Requests that wait for their answer; more are told to come back."""
    held_bytes: int = 256_000_000
    """Of all bodies that are being received or answered, as they were sent; parsing a form takes copies."""
    connections: int = 512


class Refused(Exception):
    """A request that gets no answer: a status, a word for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code = status, code

    def response(self) -> JSONResponse:
        """Returns the answer that says so."""
        headers = {"Retry-After": "1"} if self.status == 503 else {}
        return JSONResponse({"error": {"code": self.code, "message": str(self)}}, self.status, headers)


BUSY = "as many requests are waiting as may; try again in a second"


class Intake:
    """Receives bodies within the limits; `held_bytes` of them are in memory."""

    def __init__(self, limits: Limits):
        self.limits, self.held_bytes = limits, 0

    async def receive(self, request: Request) -> bytearray:
        """Returns the body, which counts as held until it is released; raises Refused if too large, slow or many."""
        most = self.limits.body_bytes
        body, passed = bytearray(), 0
        try:
            async with asyncio.timeout(self.limits.receive_seconds):
                async for chunk in request.stream():
                    passed += len(chunk)
                    if passed > DRAINED * most:
                        break
                    if passed > most:
                        self.release(body)
                        body = bytearray()
                    elif self.held_bytes + len(chunk) > self.limits.held_bytes:
                        raise Refused(503, "busy", BUSY)
                    else:
                        body += chunk
                        self.held_bytes += len(chunk)
            if passed > most:
                raise Refused(413, "too_large", f"the body: more than {most:,} bytes; send fewer or smaller images")
        except TimeoutError:
            self.release(body)
            seconds = self.limits.receive_seconds
            raise Refused(408, "too_slow", f"the body: not all of it came within {seconds:g} s; send it at once") from None
        except BaseException:
            self.release(body)
            raise
        return body

    def release(self, body: bytearray) -> None:
        """Counts a body as gone."""
        self.held_bytes -= len(body)


class Guard:
    """An application that only chosen hosts and origins reach, each answer with the headers that keep a page to itself.

    A page elsewhere could otherwise use a visitor's browser to ask a server that is bound to the visitor's own machine.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str]):
        self.app, self.hosts, self.origins = app, {host.lower() for host in hosts}, set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Predictions a request, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(Headers(scope=scope))
        await (refused.response() if refused else self.app)(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> Refused | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if _name(f"//{host}") not in self.hosts:
            return Refused(421, "wrong_host", "Host: not a name of this server; start it with --allow-host NAME to add one")
        if origin is not None and origin not in self.origins and origin.partition("://")[2] != host:
            return Refused(
                403, "wrong_origin", "Origin: not this server's page; start it with --allow-origin ORIGIN to add one"
            )
        return None


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # brackets that do not belong there
        return None


class PunctualProtocol(H11Protocol):
    """HTTP/1.1 on connections that end when their next request's headers take too long, when nobody reads the answer, or when
    there are too many."""

    limits = Limits()
    _deadline: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.close()
        self._expect_headers()

    def handle_events(self) -> None:
        """Reads what has come."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_deadline()

    def on_response_complete(self) -> None:
        """Waits for the connection's next request."""
        self._expect_headers()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Waits for a client that does not read; not for ever, since its connection is one of those that there may be."""
        self._reading = self.loop.call_later(self.limits.receive_seconds, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Goes on with a client that reads again."""
        if self._reading:
            self._reading.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets a connection."""
        self._forget_deadline()
        if self._reading:
            self._reading.cancel()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._forget_deadline()
        self._deadline = self.loop.call_later(self.limits.receive_seconds, self.transport.abort)

    def _forget_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None


def punctual(limits: Limits) -> type[H11Protocol]:
    """Returns the protocol under these limits."""
    return type("Punctual", (PunctualProtocol,), {"limits": limits})
