"""A browser that looks at the page, and a plain web server."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, Page, expect


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        pass


@contextlib.contextmanager
def plain_server(folder: Path) -> Iterator[str]:
    """The address of a plain web server over a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@dataclass
class Visit:
    page: Page
    address: str
    said: list[str]
    """Whatever the console held, and addresses elsewhere that were asked."""


def visit(browser: Browser, address: str, **settings: object) -> Visit:
    said: list[str] = []
    page = browser.new_page(**settings)  # type: ignore[arg-type]
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda asked: said.append(asked.url) if not asked.url.startswith((address, "data:", "blob:")) else None)
    page.goto(address)
    expect(page.locator("#files")).to_be_enabled()
    return Visit(page, address, said)
