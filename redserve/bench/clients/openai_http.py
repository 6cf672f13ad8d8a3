"""Any OpenAI-compatible server, by HTTP and server-sent events.

Nothing that a server says ends a run: an answer that makes no sense is a failed request.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from redserve.bench.clients.base import NO_TOKEN, Stopwatch, problem_of
from redserve.bench.clients.bodies import (
    EVENT_STREAM,
    beginning,
    coding_of,
    no_stream,
    refusal,
)
from redserve.bench.clients.events import EventReader, LineReader
from redserve.bench.pictures import media_type
from redserve.bench.room import own_limit
from redserve.errors import ConfigError, ModelNotFound, Unavailable
from redserve.slo import End
from redserve.telemetry.foreign import said

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

    import httpx

    from redserve.bench.clients.base import Manners
    from redserve.bench.clients.events import Piece
    from redserve.bench.outcome import Answer, Problem
    from redserve.bench.questions import Question

_MODELS_TIMEOUT_S: Final = 10.0
_MAX_MODELS_BYTES: Final = 2**22


class HttpClient:
    """Asks a server.

    Args:
        base_url: For example `http://127.0.0.1:8000/v1`; a user and a password in it are sent
            (HTTP Basic) and never shown.
        manners: How to ask.
        api_key: Sent as a bearer token; empty sends none.

    Raises:
        ConfigError: httpx is not installed, or the address is none.
    """

    def __init__(self, base_url: str, manners: Manners, api_key: str = "") -> None:
        self._httpx = _import_httpx()
        self._base_url = base_url.rstrip("/")
        try:
            self._httpx.URL(self._base_url)
        except self._httpx.InvalidURL as error:
            raise ConfigError(f"no address: {error}", field="--url") from error
        self._manners = manners
        self._model = manners.model
        self._http: httpx.AsyncClient = self._httpx.AsyncClient(
            headers={
                **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
                # A server that compresses holds tokens back, and what it sends has no bound.
                "Accept-Encoding": "identity",
            },
            cookies=_NoCookies(),
            event_hooks={"response": [_stay]},
            # The deadline of a request is one timer around all of it.
            timeout=None,
            limits=self._httpx.Limits(max_connections=None, max_keepalive_connections=None),
            # Neither a proxy from the environment nor a password from ~/.netrc is meant.
            trust_env=False,
        )

    @property
    def model(self) -> str:
        """Name of the model that answers, for people."""
        return said(self._model)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        try:
            if not self._model:
                self._model = await self._first_model()
        except BaseException:
            await self._http.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.__aexit__(None, None, None)

    async def ask(self, question: Question) -> Answer:
        """See `Client`."""
        content = json.dumps(self._body(question)).encode()
        watch = Stopwatch()
        try:
            async with asyncio.timeout(self._manners.timeout_s):
                return await self._stream(content, watch)
        except TimeoutError:
            message = f"no whole answer within {self._manners.timeout_s:g} s"
            return watch.stop(problem_of(End.EXPIRED, "DEADLINE_EXCEEDED", message), counted=False)
        except self._httpx.HTTPError as error:
            problem = problem_of(End.FAILED, "CONNECTION", _words_of(error))
            if isinstance(error, self._httpx.ConnectError):
                problem = _own_problem(error) or problem
            return watch.stop(problem, counted=False)
        except ValueError as error:
            message = f"the stream cannot be read: {error}"
            return watch.stop(problem_of(End.FAILED, "BAD_STREAM", message), counted=False)
        except Exception as error:  # whatever a library makes of an answer: the run goes on
            return watch.stop(problem_of(End.FAILED, "BAD_ANSWER", _words_of(error)), counted=False)

    async def _stream(self, content: bytes, watch: Stopwatch) -> Answer:
        url = f"{self._base_url}/chat/completions"
        headers = {"Content-Type": "application/json", "Accept": EVENT_STREAM}
        request = self._http.build_request("POST", url, content=content, headers=headers)
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code != 200:
                return watch.stop(await refusal(response), counted=False)
            return await _read(response, watch)
        finally:
            await response.aclose()

    async def _first_model(self) -> str:
        url = f"{without_login(self._base_url)}/models"
        try:
            async with asyncio.timeout(_MODELS_TIMEOUT_S):
                status, body = await self._models()
        except TimeoutError as error:
            reason = f"not within {_MODELS_TIMEOUT_S:g} s"
            raise Unavailable(f"{url} does not answer: {reason}") from error
        except Exception as error:  # whatever a library makes of an answer
            reason = said(str(error)) or type(error).__name__
            raise Unavailable(f"{url} does not answer: {reason}") from error
        if not 200 <= status < 300:
            raise Unavailable(f"{url} answers {status}")
        try:
            name = json.loads(body)["data"][0]["id"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ModelNotFound(f"{url} lists no model; choose one", field="--model") from error
        if not isinstance(name, str) or not name:
            raise ModelNotFound(f"{url} lists no model; choose one", field="--model")
        return name

    async def _models(self) -> tuple[int, bytes]:
        request = self._http.build_request("GET", f"{self._base_url}/models")
        response = await self._http.send(request, stream=True)
        try:
            return response.status_code, await beginning(response, _MAX_MODELS_BYTES)
        finally:
            await response.aclose()

    def _body(self, question: Question) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(picture)}}
            for picture in question.pictures
        ]
        parts.append({"type": "text", "text": question.text})
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": question.max_tokens,
            "temperature": self._manners.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._manners.ignore_eos:
            body["ignore_eos"] = True
        return body


class _NoCookies(CookieJar):
    """Keeps none: the users that a client stands for do not know of each other's."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Leave them."""


async def _stay(response: httpx.Response) -> None:
    """Go nowhere else: the library would read where to, and fail at what is no address."""
    response.headers.pop("Location", None)


def without_login(url: str) -> str:
    """An address without user and password, for people."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def data_url(picture: bytes) -> str:
    """A picture as `data:image/...;base64,...`."""
    kind = media_type(picture) or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(picture).decode('ascii')}"


async def _read(response: httpx.Response, watch: Stopwatch) -> Answer:
    if coding := coding_of(response):
        message = f"the answer is compressed ({coding}), which nobody asked for"
        return watch.stop(problem_of(End.FAILED, "NO_STREAM", message), counted=False)
    num_tokens: int | None = None
    is_whole = False
    has_pieces = False
    async for piece in _pieces(response):
        has_pieces = True
        if piece.error is not None:
            return watch.stop(problem_of(End.FAILED, "STREAM_ERROR", piece.error), counted=False)
        if piece.text:
            watch.note(length=len(piece.text), total=piece.num_output_tokens)
        if piece.num_output_tokens is not None:
            num_tokens = piece.num_output_tokens
        is_whole = is_whole or piece.is_last or piece.finish_reason is not None
        if piece.is_last:
            break
    if not is_whole:
        problem = no_stream(response) if not has_pieces else None
        problem = problem or problem_of(End.FAILED, "TRUNCATED", "the answer broke off")
        return watch.stop(problem, num_tokens=num_tokens, counted=False)
    if not watch.has_begun:
        # Whatever the service counts: nobody got it.
        return watch.stop(NO_TOKEN, num_tokens=0)
    # Text came, so a count of none is no count.
    return watch.stop(num_tokens=num_tokens or None, counted=False)


async def _pieces(response: httpx.Response) -> AsyncIterator[Piece]:
    lines, events = LineReader(), EventReader()
    async for data in response.aiter_raw():
        for line in lines.feed(data):
            piece = events.feed(line)
            if piece is not None:
                yield piece


def _own_problem(error: Exception) -> Problem | None:
    number = own_limit(error)
    if number is None:
        return None
    return problem_of(None, f"CLIENT_{errno.errorcode[number]}", os.strerror(number))


def _words_of(error: Exception) -> str:
    words = str(error)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _import_httpx() -> ModuleType:
    """Of the router's extra: not every installation has it."""
    try:
        import httpx
    except ImportError as error:
        message = "asking by HTTP needs httpx: install redserve[router], or ask by gRPC (--address)"
        raise ConfigError(message, field="--url") from error
    return httpx
