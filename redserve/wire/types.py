"""types.proto and the domain: sampling, metadata, usage, tokens, timelines.

`x_from_proto(x_to_proto(value)) == value` for every converter. What a client may write is checked
on the way in and refused with the field's path.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from redserve.domain import (
    FinishReason,
    ItemMetadata,
    SamplingParams,
    Span,
    TokenLogprob,
    TokenOutput,
    Usage,
)
from redserve.errors import InternalError, InvalidArgument
from redserve.telemetry.timeline import Bar, Timeline
from redserve.v1 import types_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEMPERATURE: Final = 100.0
MAX_REPETITION_PENALTY: Final = 100.0
MAX_PENALTY: Final = 2.0
MAX_STOPS: Final = 16
MAX_STOP_LENGTH: Final = 256
MAX_LOGPROBS: Final = 20

_REASON_TO_PROTO: Final = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
}
_REASON_FROM_PROTO: Final = {number: reason for reason, number in _REASON_TO_PROTO.items()}


def sampling_to_proto(sampling: SamplingParams) -> pb.SamplingParams:
    """Every field set."""
    return pb.SamplingParams(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=sampling.seed,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop=sampling.stop,
        stop_token_ids=sampling.stop_token_ids,
        max_tokens=sampling.max_tokens,
        ignore_eos=sampling.ignore_eos,
        num_logprobs=sampling.num_logprobs,
    )


def sampling_from_proto(proto: pb.SamplingParams, defaults: SamplingParams) -> SamplingParams:
    """Fill what is not set from `defaults`, and check every range.

    Empty lists count as not set. `ignore_eos` and `num_logprobs` have no defaults: they are what
    the request says.

    Raises:
        InvalidArgument: A value is out of range; `field` is "sampling.<name>".
    """

    def number(name: str) -> float:
        source = proto if proto.HasField(name) else defaults  # type: ignore[arg-type]
        value: float = getattr(source, name)
        return value

    def checked(name: str, holds: Callable[[float], bool], must: str) -> float:
        value = number(name)
        if not (math.isfinite(value) and holds(value)):
            raise InvalidArgument(f"must be {must}, got {value:g}", field=f"sampling.{name}")
        return value

    def penalty(name: str) -> float:
        must = f"between -{MAX_PENALTY:g} and {MAX_PENALTY:g}"
        return checked(name, lambda x: -MAX_PENALTY <= x <= MAX_PENALTY, must)

    return SamplingParams(
        temperature=checked(
            "temperature", lambda x: 0 <= x <= MAX_TEMPERATURE, f"0 to {MAX_TEMPERATURE:g}"
        ),
        top_k=int(number("top_k")),
        top_p=checked("top_p", lambda x: 0 < x <= 1, "greater than 0 and at most 1"),
        seed=int(number("seed")),
        repetition_penalty=checked(
            "repetition_penalty",
            lambda x: 0 < x <= MAX_REPETITION_PENALTY,
            f"greater than 0 and at most {MAX_REPETITION_PENALTY:g}",
        ),
        presence_penalty=penalty("presence_penalty"),
        frequency_penalty=penalty("frequency_penalty"),
        stop=_stops(proto) or defaults.stop,
        stop_token_ids=tuple(proto.stop_token_ids) or defaults.stop_token_ids,
        max_tokens=_max_tokens(proto, defaults),
        ignore_eos=proto.ignore_eos,
        num_logprobs=_num_logprobs(proto),
    )


def _stops(proto: pb.SamplingParams) -> tuple[str, ...]:
    if len(proto.stop) > MAX_STOPS:
        raise InvalidArgument(
            f"at most {MAX_STOPS} stop texts, got {len(proto.stop)}", field="sampling.stop"
        )
    for index, text in enumerate(proto.stop):
        if not 0 < len(text) <= MAX_STOP_LENGTH:
            raise InvalidArgument(
                f"a stop text has 1 to {MAX_STOP_LENGTH} characters, got {len(text)}",
                field=f"sampling.stop[{index}]",
            )
    return tuple(proto.stop)


def _max_tokens(proto: pb.SamplingParams, defaults: SamplingParams) -> int:
    value = proto.max_tokens if proto.HasField("max_tokens") else defaults.max_tokens
    if value < 1:
        raise InvalidArgument(
            f"must be at least 1, got {value}; leave it out to generate up to the context length",
            field="sampling.max_tokens",
        )
    return value


def _num_logprobs(proto: pb.SamplingParams) -> int | None:
    if not proto.HasField("num_logprobs"):
        return None
    if proto.num_logprobs > MAX_LOGPROBS:
        raise InvalidArgument(
            f"at most {MAX_LOGPROBS}, got {proto.num_logprobs}", field="sampling.num_logprobs"
        )
    return proto.num_logprobs


def span_to_proto(span: Span) -> pb.Span:
    """Prompt positions."""
    return pb.Span(start=span.start, length=span.length)


def span_from_proto(proto: pb.Span) -> Span:
    """Prompt positions."""
    return Span(start=proto.start, length=proto.length)


def metadata_to_proto(metadata: ItemMetadata) -> pb.ItemMetadata:
    """What is known of an item from its pixel size."""
    return pb.ItemMetadata(
        num_rows=metadata.num_rows, grid=metadata.grid, replacement_text=metadata.replacement_text
    )


def metadata_from_proto(proto: pb.ItemMetadata) -> ItemMetadata:
    """What is known of an item from its pixel size."""
    return ItemMetadata(
        num_rows=proto.num_rows, grid=tuple(proto.grid), replacement_text=proto.replacement_text
    )


def usage_to_proto(usage: Usage) -> pb.Usage:
    """Token counts."""
    return pb.Usage(
        num_prompt_tokens=usage.num_prompt_tokens,
        num_output_tokens=usage.num_output_tokens,
        num_cached_tokens=usage.num_cached_tokens,
        num_item_tokens=usage.num_item_tokens,
    )


def usage_from_proto(proto: pb.Usage) -> Usage:
    """Token counts."""
    return Usage(
        num_prompt_tokens=proto.num_prompt_tokens,
        num_output_tokens=proto.num_output_tokens,
        num_cached_tokens=proto.num_cached_tokens,
        num_item_tokens=proto.num_item_tokens,
    )


def finish_reason_to_proto(reason: FinishReason) -> pb.FinishReason.ValueType:
    """Why an output ended.

    Raises:
        InternalError: For ERROR, which ends a call with a status and never with a last event.
    """
    if reason not in _REASON_TO_PROTO:
        raise InternalError(f"an output that ended by {reason.value} has no last event")
    return _REASON_TO_PROTO[reason]


def finish_reason_from_proto(proto: pb.FinishReason.ValueType) -> FinishReason:
    """Why an output ended.

    Raises:
        InternalError: The other side left it out or is newer.
    """
    if proto not in _REASON_FROM_PROTO:
        raise InternalError(f"unknown finish reason {proto}")
    return _REASON_FROM_PROTO[proto]


def token_output_to_proto(output: TokenOutput) -> pb.TokenOutput:
    """One generated token."""
    return pb.TokenOutput(
        token_id=output.token_id,
        logprob=output.logprob,
        top=[
            pb.TokenLogprob(token_id=top.token_id, text=top.text, logprob=top.logprob)
            for top in output.top
        ],
    )


def token_output_from_proto(proto: pb.TokenOutput) -> TokenOutput:
    """One generated token."""
    return TokenOutput(
        token_id=proto.token_id,
        logprob=proto.logprob if proto.HasField("logprob") else None,
        top=tuple(
            TokenLogprob(token_id=top.token_id, text=top.text, logprob=top.logprob)
            for top in proto.top
        ),
    )


def bar_to_proto(bar: Bar) -> pb.TimelineBar:
    """One bar of a timeline."""
    return pb.TimelineBar(
        lane=bar.lane,
        name=bar.name,
        start_unix_ns=bar.start_ns,
        end_unix_ns=bar.end_ns,
        item_index=bar.item_index,
        num_tokens=bar.num_tokens,
        detail=bar.detail,
    )


def bar_from_proto(proto: pb.TimelineBar) -> Bar:
    """One bar of a timeline."""
    return Bar(
        lane=proto.lane,
        name=proto.name,
        start_ns=proto.start_unix_ns,
        end_ns=proto.end_unix_ns,
        item_index=proto.item_index if proto.HasField("item_index") else None,
        num_tokens=proto.num_tokens,
        detail=proto.detail,
    )


def timeline_to_proto(timeline: Timeline) -> pb.Timeline:
    """Where one request's time went."""
    return pb.Timeline(
        request_id=timeline.request_id,
        bars=[bar_to_proto(bar) for bar in timeline.bars],
        overlap_ratio=timeline.overlap_ratio,
        received_unix_ns=timeline.received_ns,
        first_token_unix_ns=timeline.first_token_ns,
        finished_unix_ns=timeline.finished_ns,
    )


def timeline_from_proto(proto: pb.Timeline) -> Timeline:
    """Where one request's time went."""
    return Timeline(
        request_id=proto.request_id,
        bars=tuple(bar_from_proto(bar) for bar in proto.bars),
        overlap_ratio=proto.overlap_ratio if proto.HasField("overlap_ratio") else None,
        received_ns=proto.received_unix_ns,
        first_token_ns=proto.first_token_unix_ns,
        finished_ns=proto.finished_unix_ns,
    )
