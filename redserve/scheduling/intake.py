"""What a request must fulfil before it is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.errors import ContextTooLong, InvalidArgument

if TYPE_CHECKING:
    from redserve.domain.request import SequenceRequest
    from redserve.scheduling.config import SchedulerConfig


def check_request(request: SequenceRequest, config: SchedulerConfig, *, known: bool) -> None:
    """Refuse what contradicts itself or could never run.

    Args:
        request: What is asked.
        config: Limits.
        known: Whether its key is in use.

    Raises:
        InvalidArgument: An empty prompt, nothing left to generate, items out of order or outside
            the prompt, overlapping spans, or a key in use.
        ContextTooLong: Prompt and output exceed the context length or the KV cache.
    """
    if known:
        raise InvalidArgument(f"{request.key} is in use; count its generation up", field="key")
    if not request.token_ids:
        raise InvalidArgument("the prompt is empty; send at least one token", field="token_ids")
    num_left = request.sampling.max_tokens - len(request.resume_token_ids)
    if num_left < 1:
        raise InvalidArgument(
            f"nothing is left to generate: {request.sampling.max_tokens} allowed, "
            f"{len(request.resume_token_ids)} made",
            field="sampling.max_tokens",
        )
    _check_items(request)
    _check_length(request, config)


def _check_items(request: SequenceRequest) -> None:
    placed = []
    for n, item in enumerate(request.items):
        if item.index != n:
            raise InvalidArgument(f"item {n} has index {item.index}", field=f"items[{n}].index")
        if not item.spans or any(span.length < 1 or span.start < 0 for span in item.spans):
            raise InvalidArgument("every item needs spans of 1 row or more", field=f"items[{n}]")
        placed += [(span.start, span.end, n) for span in item.spans]
        if list(item.spans) != sorted(item.spans, key=lambda span: span.start):
            raise InvalidArgument("spans must be in prompt order", field=f"items[{n}].spans")
    placed.sort()
    end = 0
    for start, stop, n in placed:
        if start < end:
            raise InvalidArgument("overlaps the span before it", field=f"items[{n}].spans")
        end = stop
    if end > len(request.token_ids):
        raise InvalidArgument(
            f"a span ends at {end}, the prompt has {len(request.token_ids)} tokens", field="items"
        )


def _check_length(request: SequenceRequest, config: SchedulerConfig) -> None:
    num_tokens = len(request.token_ids) + request.sampling.max_tokens
    if config.max_model_length is not None and num_tokens > config.max_model_length:
        raise ContextTooLong(
            f"{len(request.token_ids)} prompt tokens and {request.sampling.max_tokens} output "
            f"tokens exceed the context length of {config.max_model_length}",
            field="sampling.max_tokens",
        )
    room = config.num_blocks * config.block_size
    # The last output is never computed, so it needs no slot.
    if num_tokens - 1 > room:
        raise ContextTooLong(
            f"{len(request.token_ids)} prompt tokens and {request.sampling.max_tokens} output "
            f"tokens exceed the KV cache of {room} tokens",
            field="sampling.max_tokens",
        )
