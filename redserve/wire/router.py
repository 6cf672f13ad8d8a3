"""router.proto and the domain: the three events of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.v1 import router_pb2 as pb
from redserve.wire.judged import judged_to_proto
from redserve.wire.types import (
    finish_reason_to_proto,
    timeline_to_proto,
    token_output_to_proto,
    usage_to_proto,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redserve.domain import FinishReason, TokenOutput, Usage
    from redserve.slo import Judged
    from redserve.telemetry.timeline import Timeline


def started_event(
    request_id: str, model: str, num_prompt_tokens: int, num_item_tokens: Sequence[int]
) -> pb.GenerateResponse:
    """First event of an answer."""
    return pb.GenerateResponse(
        started=pb.Started(
            request_id=request_id,
            model=model,
            num_prompt_tokens=num_prompt_tokens,
            num_item_tokens=num_item_tokens,
        )
    )


def tokens_event(text: str, outputs: Iterable[TokenOutput]) -> pb.GenerateResponse:
    """New text and the tokens behind it."""
    tokens = [token_output_to_proto(output) for output in outputs]
    return pb.GenerateResponse(tokens=pb.Tokens(text=text, tokens=tokens))


def finished_event(
    reason: FinishReason, usage: Usage, timeline: Timeline | None, judged: Judged | None
) -> pb.GenerateResponse:
    """Last event of an answer."""
    return pb.GenerateResponse(
        finished=pb.Finished(
            reason=finish_reason_to_proto(reason),
            usage=usage_to_proto(usage),
            timeline=None if timeline is None else timeline_to_proto(timeline),
            judged=None if judged is None else judged_to_proto(judged),
        )
    )
