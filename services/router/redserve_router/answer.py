"""What the router answers, in one form for gRPC and HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.domain import FinishReason, TokenOutput, Usage
    from redserve.slo import Judged
    from redserve.telemetry.timeline import Bar, Timeline


@dataclass(frozen=True, slots=True)
class Started:
    """First event: an LLM replica has admitted the request.

    Attributes:
        num_prompt_tokens: With every placeholder expanded.
        num_item_tokens: Embedding rows of each picture, in prompt order.
    """

    request_id: str
    model: str
    num_prompt_tokens: int
    num_item_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """What was just done for a question that is watched; the timeline has it again.

    Attributes:
        at_ns: Now, nanoseconds since the Unix epoch.
        bars: What has ended since the last such event.
        awaited_items: Pictures that encoders are still busy with, in prompt order.
    """

    at_ns: int
    bars: tuple[Bar, ...]
    awaited_items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NewTokens:
    """Text to append and the tokens behind it; the text never splits a character."""

    text: str
    tokens: tuple[TokenOutput, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event; `timeline` and `judged` only when the timeline was asked for."""

    reason: FinishReason
    usage: Usage
    timeline: Timeline | None = None
    judged: Judged | None = None


AnswerEvent = Started | Progress | NewTokens | Finished
