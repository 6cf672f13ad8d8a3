"""Spans of the sequences that run here, made from their timelines when they end.

While a sequence runs nothing is recorded but where its announcements came from: steps of the
engine's thread never wait for a span.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redserve.domain import SequenceKey
from redserve.telemetry.clock import now_ns
from redserve.telemetry.tracing import CANCELLED, NOWHERE, context_of, reason_of
from redserve_llm.notices import Ended, Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from redserve.telemetry.timeline import Bar
    from redserve.telemetry.tracing import Span, TraceContext, Tracing
    from redserve.v1 import llm_pb2 as pb
    from redserve_llm.arena import Arena
    from redserve_llm.engine import Engine
    from redserve_llm.hub import CallEvent

    Context = grpc.aio.ServicerContext[Any, Any]

NAME = "generate"


class CallTrace:
    """One Generate call.

    Attributes:
        span: Of the call.
        origins: By item, the span that its embedding came out of.
        has_ended: Whether the sequence has ended, well or not.
    """

    def __init__(self, span: Span) -> None:
        self.span = span
        self.origins: dict[int, TraceContext] = {}
        self.has_ended = False
        self._bars: tuple[Bar, ...] = ()
        self._ended_ns = 0

    def note(self, event: CallEvent) -> None:
        """Something happens to the sequence; its end is what counts."""
        if not self.span.recording or not isinstance(event, Ended | Failed):
            return
        self.has_ended = True
        self._bars, self._ended_ns = event.bars, now_ns()
        if isinstance(event, Ended):
            usage = event.usage
            self.span.set(
                {
                    "redserve.prompt_tokens": usage.num_prompt_tokens,
                    "redserve.cached_tokens": usage.num_cached_tokens,
                    "redserve.output_tokens": usage.num_output_tokens,
                    "redserve.finish_reason": event.reason.name.lower(),
                }
            )

    def given_up(self, bars: tuple[Bar, ...]) -> None:
        """It has not ended and nobody wants its end; this was done so far."""
        self._bars = bars

    def close(self) -> None:
        """Record what there is. The end is that of the sequence: the caller may be slow to go."""
        self.span.add_bars(self._bars, self.origins)
        self.span.end(self._ended_ns or now_ns())


class Traces:
    """The calls that run."""

    def __init__(self, tracing: Tracing, engine: Engine, arena: Arena) -> None:
        self._tracing = tracing
        self._engine = engine
        self._arena = arena
        self._calls: dict[SequenceKey, CallTrace] = {}

    @contextmanager
    def call(self, request: pb.LlmServiceGenerateRequest, context: Context) -> Iterator[CallTrace]:
        """Around everything that a Generate call does."""
        span = self._tracing.span(
            NAME,
            now_ns(),
            parent=context_of(context.invocation_metadata() or ()),
            attributes={"redserve.generation": request.generation},
        )
        if not span.recording:
            yield CallTrace(span)
            return
        key = SequenceKey(request.request_id, request.generation)
        trace = self._calls[key] = CallTrace(span)
        try:
            yield trace
        except BaseException as error:
            reason = reason_of(error)
            if reason != CANCELLED or not trace.has_ended:  # the caller may go after the last event
                span.fail(reason)
            raise
        finally:
            if self._calls.get(key) is trace:
                del self._calls[key]
            trace.close()

    def leaves(self, key: SequenceKey, trace: CallTrace) -> None:
        """The caller goes; if the sequence has not ended, what was done for it so far counts."""
        if trace.span.recording and not trace.has_ended:
            trace.given_up((*self._engine.bars(key), *self._arena.bars(key)))

    def announced(self, key: SequenceKey, item_index: int, context: Context) -> None:
        """An embedding is announced for a sequence; questions after it carry no context."""
        trace = self._calls.get(key)
        origin = context_of(context.invocation_metadata() or ())
        if trace is not None and origin != NOWHERE:
            trace.origins[item_index] = origin
