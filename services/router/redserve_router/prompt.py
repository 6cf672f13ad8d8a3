"""From a question and the metadata of its pictures to tokens and spans."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from redserve.domain import Item
from redserve.errors import ContextTooLong, InternalError, InvalidArgument, PolicyViolation
from redserve.wire.types import sampling_from_proto
from redserve_router.question import TextPart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from redserve.domain import ItemMetadata, SamplingParams
    from redserve.modeling.prompt import PromptRenderer
    from redserve_router.clients.llm import LlmInfo
    from redserve_router.media.collect import Picture
    from redserve_router.question import Message, Question

MAX_CHARACTERS_PER_TOKEN = 128
"""A prompt with more characters per token of the context length than this cannot fit; saves the
time to tokenize it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with every placeholder expanded, and where the rows of each item go."""

    token_ids: tuple[int, ...]
    items: tuple[Item, ...]


class PromptBuilder:
    """Renders, expands and tokenizes in a thread of its own, beside the event loop.

    Args:
        renderer: The checkpoint's.
        executor: With one thread: the tokenizer takes one prompt at a time anyway.
    """

    def __init__(self, renderer: PromptRenderer, executor: Executor) -> None:
        self._renderer = renderer
        self._executor = executor

    async def build(
        self,
        messages: tuple[Message, ...],
        pictures: Sequence[Picture],
        metadata: Sequence[ItemMetadata],
        max_tokens: int,
    ) -> Prompt:
        """The prompt of a conversation.

        Args:
            messages: The conversation.
            pictures: Its pictures in prompt order.
            metadata: Of each picture.
            max_tokens: Context length.

        Raises:
            InvalidArgument: The chat template or the tokenizer refuses it; `field` says where.
            ContextTooLong: Its text cannot fit the context.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._executor, self._build, messages, pictures, metadata, max_tokens
        )

    def _build(
        self,
        messages: tuple[Message, ...],
        pictures: Sequence[Picture],
        metadata: Sequence[ItemMetadata],
        max_tokens: int,
    ) -> Prompt:
        try:
            text = self._renderer.render([_turn(message) for message in messages])
            if len(text) > max_tokens * MAX_CHARACTERS_PER_TOKEN:
                raise ContextTooLong(
                    f"the text has {len(text)} characters; prompt and output together may have "
                    f"{max_tokens} tokens",
                    field="messages",
                )
            expanded = self._renderer.expand_and_tokenize(
                text, replacements=[known.replacement_text for known in metadata]
            )
        except InvalidArgument as error:
            raise type(error)(error.message, field=_request_field(error.field)) from error
        items = tuple(
            _item(index, picture, known, spans)
            for index, (picture, known, spans) in enumerate(
                zip(pictures, metadata, expanded.spans, strict=True)
            )
        )
        return Prompt(tuple(expanded.token_ids), items)


def resolve_sampling(question: Question, info: LlmInfo, num_prompt_tokens: int) -> SamplingParams:
    """Sampling with every default filled in.

    Raises:
        InvalidArgument: A value is out of range.
        ContextTooLong: Prompt and requested output do not fit.
    """
    asked = question.sampling
    sampling = sampling_from_proto(asked, info.default_sampling)
    room = info.max_tokens - num_prompt_tokens
    if room < 1:
        raise ContextTooLong(
            f"the prompt has {num_prompt_tokens} tokens; prompt and output together may have "
            f"{info.max_tokens}: send less text, or fewer or smaller images",
            field="messages",
        )
    if not asked.HasField("max_tokens"):
        sampling = replace(sampling, max_tokens=room)
    elif sampling.max_tokens > room:
        raise ContextTooLong(
            f"the prompt has {num_prompt_tokens} tokens, which leaves room for {room} of the "
            f"{sampling.max_tokens} asked for: ask for {room} at most",
            field="sampling.max_tokens",
        )
    if not asked.HasField("seed"):
        sampling = replace(sampling, seed=secrets.randbits(63))
    return sampling


def check_item_sizes(
    items: Sequence[Item], pictures: Sequence[Picture], row_bytes: int, max_item_bytes: int
) -> None:
    """Refuse a picture whose embedding could never be received.

    Raises:
        PolicyViolation: An embedding is larger than the LLM replica's landing room.
    """
    for item, picture in zip(items, pictures, strict=True):
        if max_item_bytes and item.num_rows * row_bytes > max_item_bytes:
            raise PolicyViolation(
                f"the image needs {item.num_rows} embedding rows of {row_bytes} bytes; "
                f"the LLM replica takes {max_item_bytes} bytes per image: make it smaller",
                field=picture.field,
            )


def _turn(message: Message) -> dict[str, Any]:
    return {
        "role": message.role,
        "content": [
            {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
            for part in message.parts
        ],
    }


def _item(index: int, picture: Picture, metadata: ItemMetadata, spans: Sequence[Any]) -> Item:
    num_rows = sum(span.length for span in spans)
    if num_rows != metadata.num_rows:
        raise InternalError(
            f"item {index}: the encoder makes {metadata.num_rows} rows, the prompt has room "
            f"for {num_rows}; encoder and router read different checkpoints"
        )
    return Item(
        index=index,
        content_hash=picture.content_hash,
        num_rows=num_rows,
        spans=tuple(spans),
        grid=metadata.grid,
    )


def _request_field(field: str | None) -> str:
    """The renderer's path in terms of the request."""
    if field is None or not field.startswith("messages"):
        return "messages"
    return field.replace(".content[", ".parts[")
