"""Spans of a request, as every process sees them; without a tracing library.

A request's spans form one tree over all processes. Where the request stands in it travels as W3C
`traceparent` and `tracestate`, in gRPC metadata and HTTP headers alike. `redserve.telemetry.otlp`
records and exports; as long as no receiver is named it is not even imported, and all that is left
here is passing a client's own trace id on to logs and to the next process.

Attributes hold figures, ids and words of ours. Never what a user sent or got: no text, no address
of an image, no message of an error, no name of a model that is not served.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from redserve.errors import ConfigError, InternalError, RedServeError
from redserve.telemetry.clock import now_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from redserve.telemetry.timeline import Bar

Attribute = str | bool | int | float | tuple[str, ...]
Kind = Literal["internal", "server", "client"]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
REQUEST_ID: Final = "x-request-id"
"""Carries the id that the client knows a request by, between processes as from clients."""
ERROR_TYPE: Final = "error.type"
CANCELLED: Final = "CANCELLED"
"""Reason of work that its caller gave up: told, and no error."""

MAX_TRACESTATE_LENGTH: Final = 512
MAX_TRACESTATE_MEMBERS: Final = 32
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
"""Of a tracestate: a key, perhaps that of one tenant of many, and its value."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace; the default is nowhere.

    Attributes:
        traceparent: W3C's, checked; empty for nowhere.
        tracestate: What other tracing systems add; only passed on.
    """

    traceparent: str = ""
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, or empty."""
        return self.traceparent[3:35]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """As headers, or as gRPC metadata."""
        both = ((TRACEPARENT, self.traceparent), (TRACESTATE, self.tracestate))
        return tuple(pair for pair in both if pair[1])


NOWHERE: Final = TraceContext()


def context_of(pairs: Iterable[tuple[str, str | bytes]]) -> TraceContext:
    """The context that headers or gRPC metadata carry.

    What does not fit the standard counts as absent: a trace must not fail a request.

    Args:
        pairs: Names in lower case, and values.
    """
    found: dict[str, list[str]] = {TRACEPARENT: [], TRACESTATE: []}
    for name, value in pairs:
        if name in found:
            found[name].append(value if isinstance(value, str) else value.decode("latin-1"))
    parents = found[TRACEPARENT]
    match = _TRACEPARENT.fullmatch(parents[0].strip()) if len(parents) == 1 else None
    if match is None or (match[1] == "00" and match[5]):
        return NOWHERE
    state = _checked_state(",".join(found[TRACESTATE]))
    return TraceContext(f"00-{match[2]}-{match[3]}-{match[4]}", state)


def _checked_state(text: str) -> str:
    """A tracestate without what may be left out; empty if any of it does not fit the standard.

    Nobody behind this has to look again, or would tell the log what a stranger wrote.
    """
    if len(text) > MAX_TRACESTATE_LENGTH:
        return ""
    members = [stripped for member in text.split(",") if (stripped := member.strip(" \t"))]
    matches = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in matches if match is not None}
    fits = len(keys) == len(members) <= MAX_TRACESTATE_MEMBERS
    return ",".join(members) if fits else ""


def request_id_of(pairs: Iterable[tuple[str, str | bytes]]) -> str:
    """The client's id of a request in gRPC metadata; empty if there is none."""
    return next((str(value) for name, value in pairs if name == REQUEST_ID), "")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a piece of work belongs to.

    Attributes:
        request_id: As the client knows it; empty for none.
        context: The span below which the work is done.
    """

    request_id: str = ""
    context: TraceContext = NOWHERE

    @property
    def log_ids(self) -> dict[str, str]:
        """Fields of a log line."""
        ids = {"request_id": self.request_id, "trace_id": self.context.trace_id}
        return {name: text for name, text in ids.items() if text}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a gRPC call that is made for it."""
        own = ((REQUEST_ID, self.request_id),) if self.request_id else ()
        return (*own, *self.context.pairs)


NO_ORIGIN: Final = Origin()


def reason_of(error: BaseException) -> str:
    """The word that a span is given for what ended its work."""
    if isinstance(error, RedServeError):
        return error.reason
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED
    return InternalError.reason


class Span(Protocol):
    """Something that a process does for a request. Belongs to one thread at a time."""

    @property
    def context(self) -> TraceContext:
        """Its place; what others are told, so that their spans hang below."""
        ...

    @property
    def recording(self) -> bool:
        """Whether it will be exported: what is dear to find out is asked for only then."""
        ...

    def child(
        self,
        name: str,
        start_ns: int,
        *,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        """A span below this one; whoever asks for it ends it."""
        ...

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """Say more about it."""
        ...

    def event(self, name: str, at_ns: int) -> None:
        """Mark a moment."""
        ...

    def add_bars(
        self, bars: Iterable[Bar], origins: Mapping[int, TraceContext] | None = None
    ) -> None:
        """A child, ended, for every bar of a timeline.

        Args:
            bars: What this process did.
            origins: By item, the span that its bars follow from, for example in another process.
        """
        ...

    def fail(self, reason: str) -> None:
        """It did not work out; `reason` is a word of the error tree."""
        ...

    def end(self, end_ns: int) -> None:
        """It is over. Nothing can be said after that; ending it twice is harmless."""
        ...


@contextmanager
def running(span: Span) -> Iterator[Span]:
    """Around what a span is about; says by what it ended, if not well."""
    try:
        yield span
    except BaseException as error:
        span.fail(reason_of(error))
        raise
    finally:
        span.end(now_ns())


class Tracing(Protocol):
    """Makes the spans of one process."""

    def span(
        self,
        name: str,
        start_ns: int,
        *,
        parent: TraceContext = NOWHERE,
        kind: Kind = "server",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        """The first span of a request in this process.

        It is recorded if `parent` is; without a parent, with the probability that is set.
        """
        ...

    def close(self, timeout_s: float) -> None:
        """Export what is left, at most for this long; blocks."""
        ...


class PassedSpan:
    """Records nothing and passes the context on."""

    __slots__ = ("context",)

    recording: Final = False

    def __init__(self, context: TraceContext = NOWHERE) -> None:
        self.context = context

    def child(
        self,
        name: str,
        start_ns: int,
        *,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        """See `Span`."""
        return self

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """See `Span`."""

    def event(self, name: str, at_ns: int) -> None:
        """See `Span`."""

    def add_bars(
        self, bars: Iterable[Bar], origins: Mapping[int, TraceContext] | None = None
    ) -> None:
        """See `Span`."""

    def fail(self, reason: str) -> None:
        """See `Span`."""

    def end(self, end_ns: int) -> None:
        """See `Span`."""


NO_SPAN: Final = PassedSpan()


class NoTracing:
    """Tracing is off."""

    def span(
        self,
        name: str,
        start_ns: int,
        *,
        parent: TraceContext = NOWHERE,
        kind: Kind = "server",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        """See `Tracing`."""
        return PassedSpan(parent) if parent.traceparent else NO_SPAN

    def close(self, timeout_s: float) -> None:
        """See `Tracing`."""


def tracing_to(
    endpoint: str,
    *,
    role: str,
    name: str,
    service: str,
    sampling_percent: float = 0.0,
    on_lost: Callable[[int], None] = lambda _number: None,
) -> Tracing:
    """Tracing of this process.

    Args:
        endpoint: OTLP receiver, http(s)://host:port; empty switches tracing off.
        role: "router", "encoder" or "llm".
        name: Of the replica.
        service: Name of the RedService.
        sampling_percent: Share of requests without a context that are recorded.
        on_lost: Told how many spans are lost, from any thread.

    Raises:
        ConfigError: The library is not installed.
    """
    if not endpoint:
        return NoTracing()
    try:
        from redserve.telemetry.otlp import OtlpTracing
    except ImportError as error:
        raise ConfigError(
            f"spans cannot be sent to {endpoint}: {error}; "
            'install the extra "tracing" of redserve, or name no receiver',
            field="otlp_endpoint",
        ) from error
    return OtlpTracing(
        endpoint,
        role=role,
        name=name,
        service=service,
        sampling_percent=sampling_percent,
        on_lost=on_lost,
    )
