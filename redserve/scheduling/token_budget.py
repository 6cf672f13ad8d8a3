"""How many tokens a micro-batch may hold."""

from __future__ import annotations

from typing import Protocol

from redserve.errors import ConfigError


class TokenBudget(Protocol):
    """Decides B for one micro-batch."""

    def budget(
        self,
        num_decodes: int,
        decode_context_tokens: int,
        has_prefill: bool,
        prefill_context_tokens: int = 0,
    ) -> int:
        """Tokens that the next micro-batch may hold, decodes included; at least 1.

        Args:
            num_decodes: Decodes that want to be in it.
            decode_context_tokens: Sum of the tokens that they attend to.
            has_prefill: Whether any prefill token could join them.
            prefill_context_tokens: Tokens before the first prefill chunk that would join.
        """
        ...


class FixedBudget:
    """The same B always.

    Args:
        num_tokens: B.
    """

    def __init__(self, num_tokens: int) -> None:
        if num_tokens < 1:
            raise ConfigError("a token budget is at least 1", field="num_tokens")
        self.num_tokens = num_tokens

    def budget(
        self,
        num_decodes: int,
        decode_context_tokens: int,
        has_prefill: bool,
        prefill_context_tokens: int = 0,
    ) -> int:
        """B, whatever is asked."""
        return self.num_tokens
