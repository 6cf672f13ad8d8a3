"""What a request must fulfil on this replica, said with numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from redserve.errors import ContextTooLong, InvalidArgument

if TYPE_CHECKING:
    from redserve.domain import SamplingParams, SequenceRequest
    from redserve_llm.delivery import RowShape


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of one replica.

    Attributes:
        max_model_length: Most tokens of prompt and output; the KV cache holds as many.
        arena_bytes: Room for embeddings.
        shape: Of every embedding.
        dtype: Widest dtype in which embeddings are expected.
        defaults: The checkpoint's sampling.
    """

    max_model_length: int
    arena_bytes: int
    shape: RowShape
    dtype: str
    defaults: SamplingParams

    def fit(self, request: SequenceRequest) -> SequenceRequest:
        """The request with `max_tokens` cut at the end of the context.

        Raises:
            ContextTooLong: The prompt leaves no room for a single token.
            InvalidArgument: An embedding is larger than the arena.
        """
        room = self.max_model_length - request.num_prompt_tokens
        if room < 1:
            raise ContextTooLong(
                f"the prompt has {request.num_prompt_tokens} tokens, images included; this replica "
                f"takes at most {self.max_model_length} for prompt and output together",
                field="token_ids",
            )
        for item in request.items:
            size = self.shape.num_bytes(item.num_rows, self.dtype)
            if size > self.arena_bytes:
                raise InvalidArgument(
                    f"its {item.num_rows} rows take {size} bytes, more than the arena's "
                    f"{self.arena_bytes}; send a smaller image or raise arena_bytes",
                    field=f"items[{item.index}]",
                )
        sampling = request.sampling
        if sampling.max_tokens <= room:
            return request
        return replace(request, sampling=replace(sampling, max_tokens=room))
