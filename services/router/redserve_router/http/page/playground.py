"""Routes of the page and what browsers are told about it."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from redserve_router.http.page.facts import PageFacts

MEDIA_TYPES: Final[Mapping[str, str]] = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
HEADERS: Final[Mapping[str, str]] = {
    # Nothing but our own files, no inline code or style, no frame around it. `blob:` are the
    # previews of pictures that were chosen, which never leave the browser by this way.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # A page of yesterday's release must not talk to a router of today.
    "Cache-Control": "no-cache",
}
INDEX: Final = "index.html"


class Playground:
    """Serves the page.

    Args:
        facts: What is shown of the service, as it is now.
    """

    def __init__(self, facts: Callable[[], PageFacts]) -> None:
        self._facts = facts
        self._assets = {
            asset.name: asset.read_bytes()
            for asset in files(__package__).joinpath("assets").iterdir()
            if asset.name.rpartition(".")[2] in MEDIA_TYPES
        }

    def routes(self) -> list[Route]:
        """For the application that it is part of."""
        names = [name for name in self._assets if name != INDEX]
        return [
            Route("/", self._asset_route(INDEX), methods=["GET"]),
            *(
                Route(f"/playground/{name}", self._asset_route(name), methods=["GET"])
                for name in sorted(names)
            ),
            Route("/playground/facts", self._facts_route, methods=["GET"]),
        ]

    def _asset_route(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        content, media_type = self._assets[name], MEDIA_TYPES[name.rpartition(".")[2]]

        async def serve(_request: Request) -> Response:
            return Response(content, headers=HEADERS, media_type=media_type)

        return serve

    async def _facts_route(self, _request: Request) -> Response:
        content = to_json(self._facts().to_dict(), inf_nan_mode="null")
        headers = {**HEADERS, "Cache-Control": "no-store"}
        return Response(content, headers=headers, media_type="application/json")
