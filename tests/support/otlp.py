"""A real OTLP receiver on loopback: what a collector gets over gRPC, as plain values."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

WAIT_S = 60.0


@dataclass(frozen=True)
class Received:
    """A span as it came in; ids in hexadecimal, times in nanoseconds since the Unix epoch."""

    name: str
    role: str
    process: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: dict[str, int]
    links: tuple[str, ...]
    is_error: bool


class Receiver:
    """Takes every span; use it as a context manager.

    Args:
        port: 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._wanted_port = port
        self._changed = threading.Condition()
        self._received: list[Received] = []
        self._server: grpc.Server | None = None
        self.port = 0
        self.refuses = False

    def __enter__(self) -> Self:
        # The exporter's own way: no SO_REUSEPORT, so that a port has one receiver.
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # untyped
        add(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self._wanted_port}")
        self._server.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.stop(0).wait()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Received]:
        with self._changed:
            return list(self._received)

    def of_trace(self, trace_id: str) -> list[Received]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def wait(self, condition: Callable[[list[Received]], bool], limit_s: float = WAIT_S) -> None:
        """Until the spans that have come fulfil a condition."""
        with self._changed:
            held = self._changed.wait_for(lambda: condition(self._received), limit_s)
            assert held, sorted((span.process, span.name) for span in self._received)

    def Export(  # noqa: N802  # OTLP's name
        self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        if self.refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no spans today")
        with self._changed:
            self._received.extend(_received(request))
            self._changed.notify_all()
        return pb.ExportTraceServiceResponse()


def _received(request: pb.ExportTraceServiceRequest) -> Iterator[Received]:
    for of_resource in request.resource_spans:
        resource = _values(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Received(
                    name=span.name,
                    role=str(resource["service.name"]),
                    process=str(resource["service.instance.id"]),
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_values(span.attributes),
                    events={event.name: event.time_unix_nano for event in span.events},
                    links=tuple(link.span_id.hex() for link in span.links),
                    is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                )


def _values(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
