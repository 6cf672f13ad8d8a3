"""A request as an LLM replica sees it: tokens, items and limits, nothing encoded yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redserve.domain.sampling import SamplingParams

if TYPE_CHECKING:
    from redserve.domain.item import Item


@dataclass(frozen=True, slots=True, order=True)
class SequenceKey:
    """Identity of one request inside one LLM replica.

    Attributes:
        request_id: The router's id, unique for ever.
        generation: How often the router has handed this request to an LLM replica. Whatever
            carries an older generation is late and must be dropped.
    """

    request_id: str
    generation: int = 0


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """Everything needed to run a sequence.

    Attributes:
        token_ids: Prompt with every item's placeholders expanded.
        items: In prompt order; `items[i].index == i`.
        resume_token_ids: Tokens that another replica generated already: they are recomputed like
            prompt, count as output, and are not sent again.
    """

    key: SequenceKey
    token_ids: tuple[int, ...]
    items: tuple[Item, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    resume_token_ids: tuple[int, ...] = ()

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt, resumed outputs not counted."""
        return len(self.token_ids)
