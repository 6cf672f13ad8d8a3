"""Servers beside the router, on the same machine: somebody else's, and one in front of the router.

What a test fulfils in place of a server has no address, and Chromium lets such a page reach nothing
on this machine, whatever its headers say. So all of them are real.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Final

import httpx

from tests.page.asking import STAR

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

ANSWER_S: Final = 60.0
HTML: Final = "text/html"
NO_PAGE: Final = (HTML, b"<!doctype html><h1>elsewhere</h1>")


@dataclass
class Elsewhere:
    """What somebody else serves, and who came. Everybody may read what it says.

    Attributes:
        url: Without a slash at the end.
        files: Path -> media type and content; anything else is `NO_PAGE`.
        visits: Path -> the Referer of whoever asked for it last; empty without one.
    """

    url: str = ""
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    visits: dict[str, str] = field(default_factory=dict)


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """Runs it."""
    place = Elsewhere(
        files={
            "/picture.png": ("image/png", STAR.read_bytes()),
            "/script.js": ("text/javascript", b"window.did.push('foreign script');"),
            "/style.css": ("text/css", b"#mark { top: 3px; }"),
        }
    )

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        place.visits[path] = handler.headers.get("Referer", "")
        kind, content = place.files.get(path, NO_PAGE)
        _reply(handler, 200, {"Content-Type": kind, "Access-Control-Allow-Origin": "*"}, content)

    with _running(answer) as place.url:
        yield place


@contextmanager
def passage(
    url: str, *, dropped: Collection[str] = (), markup: str = "", probe: str = ""
) -> Iterator[str]:
    """Everything that the router answers, under another address.

    Args:
        url: Of the router.
        dropped: Headers that do not come through, in small letters.
        markup: Put at the end of the page.
        probe: Served as `/playground/probe.js`, with all headers of a file of the page.

    Yields:
        The address, without a slash at the end.
    """

    def answer(handler: BaseHTTPRequestHandler) -> None:
        is_probe = handler.path == "/playground/probe.js"
        path = "/playground/main.js" if is_probe else handler.path
        reply = httpx.get(f"{url}{path}", timeout=ANSWER_S, trust_env=False)
        content = probe.encode() if is_probe else reply.content
        if path == "/":
            end = b"</body>"
            assert content.count(end) == 1
            content = content.replace(end, markup.encode() + end)
        left_out = {"content-length", "date", "server", *dropped}
        headers = {name: value for name, value in reply.headers.items() if name not in left_out}
        _reply(handler, reply.status_code, headers, content)

    with _running(answer) as own:
        yield own


@contextmanager
def _running(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _reply(
    handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], content: bytes
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
