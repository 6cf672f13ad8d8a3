"""Spans by the OpenTelemetry SDK, exported by OTLP over gRPC. The only module that imports it.

Spans wait in a bounded queue of ours, not the SDK's, which drops without a word. They are sent once
a second; requests never notice.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from redserve import __version__
from redserve.errors import ALL_ERRORS, ConfigError
from redserve.telemetry.log import get_logger
from redserve.telemetry.span_queue import SpanQueue
from redserve.telemetry.timeline import ABORTED
from redserve.telemetry.tracing import CANCELLED, ERROR_TYPE, NOWHERE, PassedSpan, TraceContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.sdk.trace import ReadableSpan

    from redserve.telemetry.timeline import Bar
    from redserve.telemetry.tracing import Attribute, Kind, Span

log = get_logger()

MAX_QUEUED_SPANS: Final = 4096
"""Of a hundred requests or so; 15 MB."""
MAX_BATCH_SPANS: Final = 512
INTERVAL_S: Final = 1.0
DEFAULT_PORT: Final = 4317
EXPORT_TIMEOUT_S: Final = 5.0
"""For one batch, tries again included."""

_KINDS: Final = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
}
_BLAMELESS: Final = frozenset(kind.reason for kind in ALL_ERRORS if kind.http_status < 500)
"""By OpenTelemetry's conventions a server that says 4xx has done its work: no status Error."""
_CHATTY: Final = "opentelemetry"
"""Logger that tells of every batch and every span that is lost, of which we tell the first, and
quotes what it does not like of a client's headers."""


class OtlpTracing:
    """See `redserve.telemetry.tracing.Tracing`.

    Args:
        endpoint: http(s)://host:port; certificates and headers are OpenTelemetry's own variables.
        role: "router", "encoder" or "llm".
        name: Of the replica.
        service: Name of the RedService.
        sampling_percent: Share of requests without a context that are recorded.
        on_lost: Told how many spans are lost, from any thread.

    Raises:
        ConfigError: The endpoint is none.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        role: str,
        name: str,
        service: str,
        sampling_percent: float,
        on_lost: Callable[[int], None],
    ) -> None:
        # First, so that it may complain of its own variable, which is the administrator's text.
        resource = Resource.create(
            {
                "service.name": f"redserve-{role}",
                "service.namespace": service,
                "service.instance.id": name,
                "service.version": __version__,
            }
        )
        logging.getLogger(_CHATTY).setLevel(logging.CRITICAL + 1)
        root = TraceIdRatioBased(sampling_percent / 100) if sampling_percent else ALWAYS_OFF
        receiver = _with_port(endpoint)
        exporter = OTLPSpanExporter(endpoint=receiver, timeout=EXPORT_TIMEOUT_S)
        self._end_exporter = exporter.shutdown
        self._queue = SpanQueue(
            lambda spans: exporter.export(spans) is SpanExportResult.SUCCESS,
            on_lost,
            endpoint=receiver,
            max_length=MAX_QUEUED_SPANS,
            max_batch=MAX_BATCH_SPANS,
            interval_s=INTERVAL_S,
        )
        provider = TracerProvider(
            sampler=ParentBased(root), resource=resource, shutdown_on_exit=False
        )
        provider.add_span_processor(_ToQueue(self._queue))
        self._tracer = provider.get_tracer("redserve", __version__)
        self._closed = False

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
        remote = _span_context(parent)
        around = Context()
        if remote is not None:
            around = trace.set_span_in_context(NonRecordingSpan(remote), around)
        made = self._tracer.start_span(
            name, around, kind=_KINDS[kind], attributes=attributes, start_time=start_ns
        )
        if not made.is_recording():
            return PassedSpan(_trace_context(made.get_span_context()))
        return _RecordedSpan(made, self._tracer, kind)

    def close(self, timeout_s: float) -> None:
        """See `Tracing`."""
        if self._closed:
            return
        self._closed = True
        num_left = self._queue.close(timeout_s)
        if num_left:
            log.warning(
                "spans are left behind: the receiver does not take them in time", num_left=num_left
            )
        self._end_exporter()  # also a try that is under way


class _RecordedSpan:
    """A span that will be exported."""

    __slots__ = ("_blameless", "_span", "_tracer", "context")

    recording: Final = True

    def __init__(self, span: trace.Span, tracer: trace.Tracer, kind: Kind) -> None:
        self._blameless = _BLAMELESS if kind == "server" else frozenset((CANCELLED,))
        self._span = span
        self._tracer = tracer
        self.context = _trace_context(span.get_span_context())

    def child(
        self,
        name: str,
        start_ns: int,
        *,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        """See `Span`."""
        made = self._tracer.start_span(
            name,
            trace.set_span_in_context(self._span, Context()),
            kind=_KINDS[kind],
            attributes=attributes,
            start_time=start_ns,
        )
        return _RecordedSpan(made, self._tracer, kind)

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """See `Span`."""
        self._span.set_attributes(attributes)

    def event(self, name: str, at_ns: int) -> None:
        """See `Span`."""
        self._span.add_event(name, timestamp=at_ns)

    def add_bars(
        self, bars: Iterable[Bar], origins: Mapping[int, TraceContext] | None = None
    ) -> None:
        """See `Span`."""
        here = trace.set_span_in_context(self._span, Context())
        for bar in bars:
            origin = None
            if origins and bar.item_index is not None:
                origin = _span_context(origins.get(bar.item_index, NOWHERE))
            span = self._tracer.start_span(
                bar.name,
                here,
                attributes=_attributes(bar),
                links=[Link(origin)] if origin is not None else None,
                start_time=bar.start_ns,
            )
            if bar.name == ABORTED:
                span.set_status(Status(StatusCode.ERROR))
                span.set_attribute(ERROR_TYPE, bar.detail or ABORTED)
            span.end(bar.end_ns)

    def fail(self, reason: str) -> None:
        """See `Span`."""
        if not self._span.is_recording():
            return
        self._span.set_attribute(ERROR_TYPE, reason)
        if reason not in self._blameless:
            # Without the sentence: it may quote what the client sent.
            self._span.set_status(Status(StatusCode.ERROR))

    def end(self, end_ns: int) -> None:
        """See `Span`."""
        if self._span.is_recording():
            self._span.end(end_ns)


class _ToQueue(SpanProcessor):
    """Hands over every span that has ended."""

    def __init__(self, queue: SpanQueue) -> None:
        self._queue = queue

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor`."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._queue.put(span)


def _with_port(endpoint: str) -> str:
    """As the exporter needs it: without one it would try the web's ports."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        port = 0
    if not port or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{endpoint!r} is no OTLP receiver: write http://host:port or https://host:port",
            field="otlp_endpoint",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def _attributes(bar: Bar) -> dict[str, Attribute]:
    made: dict[str, Attribute] = {}
    if bar.item_index is not None:
        made["redserve.item"] = bar.item_index
    if bar.num_tokens:
        made["redserve.tokens"] = bar.num_tokens
    if bar.detail:
        made["redserve.detail"] = bar.detail
    return made


def _span_context(context: TraceContext) -> SpanContext | None:
    if not context.traceparent:
        return None
    _, trace_id, span_id, flags = context.traceparent.split("-")
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([context.tracestate]) if context.tracestate else None,
    )


def _trace_context(context: SpanContext) -> TraceContext:
    ids = f"{context.trace_id:032x}-{context.span_id:016x}"
    return TraceContext(f"00-{ids}-{int(context.trace_flags):02x}", context.trace_state.to_header())
