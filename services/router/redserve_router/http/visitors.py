"""What web pages of others may not do through the browser of somebody who reaches the router.

A browser sends requests for any page to any address, and the router asks nobody who they are. So
what a browser sends for a page of somebody else is refused. Programs say nothing of pages, and
none of this concerns them.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from redserve_router.http.errors import forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing, and a page of somebody else cannot read what is answered."""
OURS: Final = frozenset({"same-origin", "none"})
"""What a browser calls requests of the page itself, and of the person in front of it."""
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})


class OwnHosts:
    """The names under which a router of this machine is asked for.

    A page can point a name of its own at this machine, and is then of the same origin. The name
    tells: it is none of these.

    Args:
        bound: Address that the router listens on.
        machine: Name of the machine.
    """

    def __init__(self, bound: str, machine: str) -> None:
        self._any_address = bound in WILDCARDS
        label = machine.lower().partition(".")[0]
        own = (machine.lower(), label, f"{label}.local") if self._any_address and label else ()
        self._names = LOOPBACK_HOSTS | {bound.lower(), *own}

    def __contains__(self, host: object) -> bool:
        """Whether a Host header names this machine."""
        name = _name(str(host))
        return name in self._names or (self._any_address and _is_address(name))


class Visitors:
    """Middleware: refuses with 403 what a browser sends for somebody else's page.

    Args:
        app: The application.
        own_hosts: Under which names it may be asked for; None allows any.
        page_paths: Paths that only browsers ask for.
    """

    def __init__(
        self, app: ASGIApp, *, own_hosts: OwnHosts | None = None, page_paths: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._own_hosts = own_hosts
        self._page_paths = frozenset(page_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host")
        if self._is_foreign_host(scope["path"], host, headers):
            answer = forbidden(
                f"this service of a single machine is not asked for as {host!r}: use localhost, "
                "or the address that it listens on",
                "foreign_host",
            )
            await answer(scope, receive, send)
        elif scope["method"] not in HARMLESS and _is_for_another_page(headers, host):
            answer = forbidden(
                "a web page of another origin may not use this service through a browser",
                "foreign_origin",
            )
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_foreign_host(self, path: str, host: str | None, headers: Headers) -> bool:
        if self._own_hosts is None or host is None or host in self._own_hosts:
            return False
        return path in self._page_paths or _is_from_browser(headers)


def _is_from_browser(headers: Headers) -> bool:
    return "origin" in headers or any(name.startswith("sec-fetch-") for name in headers)


def _is_for_another_page(headers: Headers, host: str | None) -> bool:
    # The browser's own word first: no page can set it, and a gateway that writes another Host
    # leaves it as it is. Not every address has it: plain HTTP beyond loopback has the origin only.
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in OURS
    origin = headers.get("origin")
    return origin is not None and _authority(origin) != (host or "").lower()


def _authority(origin: str) -> str | None:
    """Host and port of an origin; None for one that has none, such as "null"."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _name(host: str) -> str:
    """A Host header without its port and brackets; a dot at the end means nothing."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
