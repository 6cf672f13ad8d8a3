"""How many tokens a micro-batch may hold."""

from __future__ import annotations

from typing import Protocol

from redserve.errors import ConfigError
from redserve.scheduling.cost_model import CostModel, StepFeatures, attended


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


class CostModelBudget:
    """The largest B whose predicted step keeps the TPOT target (*ours*: B is not a constant).

    Every token of prefill stretches the step that the decodes beside it wait for, so prefill gets
    what the target leaves. With no decode in the batch nobody waits, and B opens up.

    Args:
        model: Predicts the seconds of a step; shared with whoever observes steps.
        tpot_target_s: Longest step that the decodes may see, in seconds.
        max_budget: Most tokens of a micro-batch (memory for activations).
        min_budget: Prefill tokens offered beside decodes even when the target is missed without
            them, so that the queue moves.
    """

    def __init__(
        self, model: CostModel, *, tpot_target_s: float, max_budget: int, min_budget: int
    ) -> None:
        if not 1 <= min_budget <= max_budget:
            raise ConfigError(
                f"must lie between 1 and max_budget ({max_budget}), is {min_budget}",
                field="min_budget",
            )
        if tpot_target_s <= 0:
            raise ConfigError("must be more than 0 seconds", field="tpot_target_s")
        self.model = model
        self.tpot_target_s = tpot_target_s
        self.max_budget = max_budget
        self.min_budget = min_budget

    def budget(
        self,
        num_decodes: int,
        decode_context_tokens: int,
        has_prefill: bool,
        prefill_context_tokens: int = 0,
    ) -> int:
        """`max_budget` without decodes, else as many tokens as the target allows."""
        if num_decodes == 0:
            return self.max_budget
        if not has_prefill or num_decodes + self.min_budget >= self.max_budget:
            return min(self.max_budget, num_decodes + self.min_budget)

        def keeps_target(num_prefill: int) -> bool:
            features = StepFeatures(
                prefill_tokens=num_prefill,
                prefill_attention=attended(prefill_context_tokens, num_prefill),
                num_decodes=num_decodes,
                decode_context_tokens=decode_context_tokens,
            )
            return self.model.predict(features) <= self.tpot_target_s

        fits, exceeds = self.min_budget, self.max_budget - num_decodes + 1
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            if keeps_target(middle):
                fits = middle
            else:
                exceeds = middle
        return num_decodes + fits

    def observe(self, features: StepFeatures, seconds: float) -> None:
        """Let the model learn from a step that ran."""
        self.model.observe(features, seconds)
