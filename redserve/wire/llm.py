"""llm.proto and the domain: a sequence to run, with every rule of its items checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.domain import Item, SequenceKey, SequenceRequest, Span
from redserve.errors import InvalidArgument
from redserve.v1 import llm_pb2 as pb
from redserve.wire.types import (
    sampling_from_proto,
    sampling_to_proto,
    span_from_proto,
    span_to_proto,
)

if TYPE_CHECKING:
    from redserve.domain import SamplingParams

CONTENT_HASH_BYTES: Final = 32


def sequence_request_to_proto(request: SequenceRequest) -> pb.LlmServiceGenerateRequest:
    """A sequence to run."""
    return pb.LlmServiceGenerateRequest(
        request_id=request.key.request_id,
        generation=request.key.generation,
        token_ids=request.token_ids,
        items=[
            pb.PromptItem(
                index=item.index,
                content_hash=item.content_hash,
                spans=[span_to_proto(span) for span in item.spans],
                grid=item.grid,
            )
            for item in request.items
        ],
        sampling=sampling_to_proto(request.sampling),
        resume_token_ids=request.resume_token_ids,
    )


def sequence_request_from_proto(
    proto: pb.LlmServiceGenerateRequest, defaults: SamplingParams
) -> SequenceRequest:
    """A sequence to run, checked: whatever passes here the engine can trust.

    Raises:
        InvalidArgument: A field does not hold; `field` is its path.
    """
    if not proto.request_id:
        raise InvalidArgument("must not be empty", field="request_id")
    if not proto.token_ids:
        raise InvalidArgument("a prompt has at least one token", field="token_ids")
    items: list[Item] = []
    free_from = 0  # items and their spans come in prompt order and never overlap
    for index, prompt_item in enumerate(proto.items):
        item = _item(prompt_item, index, free_from, len(proto.token_ids))
        items.append(item)
        free_from = item.end
    return SequenceRequest(
        key=SequenceKey(request_id=proto.request_id, generation=proto.generation),
        token_ids=tuple(proto.token_ids),
        items=tuple(items),
        sampling=sampling_from_proto(proto.sampling, defaults),
        resume_token_ids=tuple(proto.resume_token_ids),
    )


def _item(proto: pb.PromptItem, index: int, free_from: int, num_tokens: int) -> Item:
    path = f"items[{index}]"
    if proto.index != index:
        raise InvalidArgument(
            f"items are numbered 0, 1, 2, … in prompt order; expected {index}, got {proto.index}",
            field=f"{path}.index",
        )
    if len(proto.content_hash) != CONTENT_HASH_BYTES:
        raise InvalidArgument(
            f"a sha256 digest has {CONTENT_HASH_BYTES} bytes, got {len(proto.content_hash)}",
            field=f"{path}.content_hash",
        )
    if not proto.spans:
        raise InvalidArgument("an item fills at least one span", field=f"{path}.spans")
    if proto.grid and len(proto.grid) != 3:
        raise InvalidArgument(
            f"a grid is (t, h, w) or empty, got {len(proto.grid)} numbers", field=f"{path}.grid"
        )
    spans: list[Span] = []
    for number, span_proto in enumerate(proto.spans):
        span = span_from_proto(span_proto)
        _check_span(span, free_from, num_tokens, f"{path}.spans[{number}]")
        spans.append(span)
        free_from = span.end
    return Item(
        index=index,
        content_hash=proto.content_hash,
        num_rows=sum(span.length for span in spans),
        spans=tuple(spans),
        grid=tuple(proto.grid),
    )


def _check_span(span: Span, free_from: int, num_tokens: int, path: str) -> None:
    where = f"[{span.start}, {span.end})"
    if span.length < 1:
        raise InvalidArgument("a span has at least one position", field=path)
    if span.end > num_tokens:
        raise InvalidArgument(f"{where} leaves the prompt of {num_tokens} tokens", field=path)
    if span.start < free_from:
        raise InvalidArgument(
            f"{where} overlaps or comes before the span that ends at {free_from}; "
            "spans are disjoint and in prompt order",
            field=path,
        )
