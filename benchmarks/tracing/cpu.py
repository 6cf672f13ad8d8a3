"""CPU time of one request's spans, without the service around them: free of the machine's noise.

The spans are those of a request with two images in all three processes together, made as the
services make them; exporting them is part of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from redserve.telemetry.clock import now_ns
from redserve.telemetry.timeline import Bar
from redserve.telemetry.tracing import context_of, tracing_to

if TYPE_CHECKING:
    from redserve.telemetry.tracing import Span, TraceContext, Tracing

NUM_REQUESTS: Final = 150
"""Fewer spans than the queue holds: all of them are exported."""
_FLUSH_S: Final = 30.0


def cpu_us(endpoint: str, percent: float) -> float:
    """Microseconds of CPU per request, of all threads.

    Args:
        endpoint: Of a receiver; no tracing when empty.
        percent: 0 or 100: whether requests are recorded.
    """
    tracing = tracing_to(endpoint, role="router", name="r", service="s", sampling_percent=percent)
    _request(tracing)
    start = time.process_time()
    for _ in range(NUM_REQUESTS):
        _request(tracing)
    tracing.close(_FLUSH_S)
    return (time.process_time() - start) / NUM_REQUESTS * 1e6


def _request(tracing: Tracing) -> None:
    start_ns = now_ns()
    root = tracing.span("chat", start_ns, attributes={"gen_ai.operation.name": "chat"})
    generate = root.child("generate", start_ns, kind="client")
    encode = root.child("encode", start_ns, kind="client")
    origins = dict(enumerate(_item(tracing, encode, item) for item in range(2)))
    engine = tracing.span("generate", start_ns, parent=_sent(generate))
    bars = [_bar("transfer", 0), _bar("transfer", 1), *map(_bar, ("queue", *["prefill"] * 3))]
    _end(engine, [*bars, _bar("decode")], origins)
    for call in (generate, encode):
        call.end(now_ns())
    root.set({f"gen_ai.usage.{name}": 1 for name in ("input_tokens", "output_tokens")})
    _end(root, list(map(_bar, ("preprocess", "describe", "tokenize"))), {})


def _item(tracing: Tracing, call: Span, item: int) -> TraceContext:
    span = tracing.span("item", now_ns(), parent=_sent(call), attributes={"redserve.item": item})
    _end(span, [_bar(name, item) for name in ("queue", "preprocess", "encode", "publish")], {})
    return span.context


def _sent(span: Span) -> TraceContext:
    """As the other process gets it."""
    return context_of(span.context.pairs)


def _end(span: Span, bars: list[Bar], origins: dict[int, TraceContext]) -> None:
    span.add_bars(bars, origins)
    span.end(now_ns())


def _bar(name: str, item: int | None = None) -> Bar:
    return Bar("r", name, now_ns(), now_ns(), item, num_tokens=1)
