"""What a sequence gives back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class FinishReason(Enum):
    """Why an output ended."""

    STOP = "stop"
    """An end token or a stop text."""
    LENGTH = "length"
    """max_tokens or the context length."""
    CANCELLED = "cancelled"
    """The client went away or asked to stop."""
    ERROR = "error"
    """A typed error ended it."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of one token."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One generated token; `top` holds the most likely alternatives if asked for."""

    token_id: int
    logprob: float | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a finished request.

    Attributes:
        num_prompt_tokens: With every placeholder expanded.
        num_output_tokens: Generated tokens, the end token included.
        num_cached_tokens: Prompt tokens whose KV the prefix cache had.
        num_item_tokens: Prompt tokens that are embedding rows.
    """

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    num_item_tokens: int = 0
