"""What a replica remembers of the spans that its embeddings came out of."""

from __future__ import annotations

from typing import Any

from redserve.domain import SequenceKey
from redserve.telemetry.tracing import context_of, tracing_to
from redserve.v1 import llm_pb2 as pb
from redserve_llm.traces import Traces
from tests.support.otlp import Receiver

ENCODER = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)


class Call:
    """A gRPC call, as far as its metadata go."""

    def __init__(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def test_a_question_after_an_announcement_takes_nothing_away() -> None:
    nobody: Any = None
    request = pb.LlmServiceGenerateRequest(request_id="r", generation=1)
    with Receiver() as receiver:
        tracing = tracing_to(
            receiver.endpoint,
            role="llm",
            name="llm-0",
            service="demo",
            sampling_percent=100,
            on_lost=lambda _: None,
        )
        traces: Any = Traces(tracing, nobody, nobody)
        with traces.call(request, Call()) as trace:
            traces.announced(SequenceKey("r", 1), 0, Call(ENCODER))
            traces.announced(SequenceKey("r", 1), 0, Call())  # is it still wanted?
            assert trace.origins == {0: context_of(ENCODER)}
        tracing.close(10.0)
