"""Spans of the items that are encoded here, made from their timelines when they end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redserve.telemetry.tracing import Origin, context_of, reason_of, request_id_of
from redserve_encoder.delivery import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from redserve.telemetry.tracing import Span, Tracing
    from redserve.v1 import encoder_pb2 as pb
    from redserve_encoder.delivery import Outcome

    Context = grpc.aio.ServicerContext[Any, Any]

NAME = "item"


class CallTrace:
    """One Encode call: a span per item, from the call's arrival to the item's outcome.

    Args:
        request_id: As the client knows it.
        spans: By item.
        now_ns: The clock.
    """

    def __init__(self, request_id: str, spans: dict[int, Span], now_ns: Callable[[], int]) -> None:
        self._request_id = request_id
        self._spans = spans
        self._now_ns = now_ns

    def origin(self, item_index: int) -> Origin:
        """What the work for an item belongs to."""
        return Origin(self._request_id, self._spans[item_index].context)

    def note(self, outcome: Outcome) -> None:
        """An item ends now."""
        span = self._spans.pop(outcome.tag.item_index)
        if not span.recording:
            return
        span.set({"redserve.attempt": outcome.tag.attempt})
        if isinstance(outcome, Failed):
            span.fail(outcome.reason)
        else:
            span.set({"redserve.cached": outcome.cached})
            span.add_bars(outcome.bars)
        span.end(self._now_ns())

    def fail(self, reason: str) -> None:
        """The items without an outcome get none any more."""
        for span in self._spans.values():
            span.fail(reason)

    def close(self) -> None:
        """The call is over."""
        for span in self._spans.values():
            span.end(self._now_ns())


class Traces:
    """Makes the spans of this encoder."""

    def __init__(self, tracing: Tracing, now_ns: Callable[[], int]) -> None:
        self._tracing = tracing
        self._now_ns = now_ns

    @contextmanager
    def call(
        self, request: pb.EncodeRequest, context: Context, submitted_ns: int
    ) -> Iterator[CallTrace]:
        """Around everything that an Encode call does.

        Args:
            request: What is asked for.
            context: Of the call.
            submitted_ns: When it came: the first bar of every item begins then.
        """
        metadata = context.invocation_metadata() or ()
        parent = context_of(metadata)
        spans = {
            item.index: self._tracing.span(
                NAME,
                submitted_ns,
                parent=parent,
                attributes={
                    "redserve.item": item.index,
                    "redserve.tokens": item.num_rows,
                    "redserve.generation": request.generation,
                },
            )
            for item in request.items
        }
        trace = CallTrace(request_id_of(metadata) or request.request_id, spans, self._now_ns)
        try:
            yield trace
        except BaseException as error:
            trace.fail(reason_of(error))
            raise
        finally:
            trace.close()
