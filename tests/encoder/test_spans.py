"""The spans of an encoder, as an OTLP receiver gets them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.telemetry.clock import now_ns
from tests.encoder.support import bench, failures, item, picture, published
from tests.support.otlp import Receiver

if TYPE_CHECKING:
    from tests.support.otlp import Received

TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = (("traceparent", f"00-{TRACE}-{CLIENT_SPAN}-01"),)


def is_told(spans: list[Received]) -> bool:
    items = sum(span.name == "item" for span in spans)
    return items == 2 and {span.name for span in spans} >= {"queue", "encode", "publish"}


async def test_the_work_for_an_image_lies_within_its_span() -> None:
    with Receiver() as receiver:
        async with bench(otlp_endpoint=receiver.endpoint) as b:
            before_ns = now_ns()
            events = await b.encode("r", [item(0, picture()), item(1, b"no picture", rows=4)],
                                    metadata=SENT)  # fmt: skip
            await b.landed(("r", 0))
            assert (published(events), failures(events)) == ([0], {1: "INVALID_ARGUMENT"})
            # Here: at its end a process waits for a slow receiver for a moment only.
            await asyncio.to_thread(receiver.wait, is_told)
        spans = receiver.of_trace(TRACE)
    items = {span.span_id: span for span in spans if span.name == "item"}
    assert {span.parent_id for span in items.values()} == {CLIENT_SPAN}
    work = [span for span in spans if span.span_id not in items]
    assert {span.name for span in work} >= {"queue", "encode", "publish"}
    for span in work:
        around = items[span.parent_id]
        assert before_ns <= around.start_ns <= span.start_ns <= span.end_ns <= around.end_ns, span
