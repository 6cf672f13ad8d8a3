"""The token budget that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.scheduling import CostModel, CostModelBudget, FixedBudget

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.scheduling import StepFeatures, TokenBudget
    from redserve.spec.settings import LLMSettings
    from redserve_llm.model import CostGuess


def make_budget(
    settings: LLMSettings, guess: CostGuess
) -> tuple[TokenBudget, Callable[[StepFeatures, float], None] | None]:
    """A budget, and what wants to see how long steps take.

    `token_budget` fixed; or, with a TPOT target, as much of it as the target leaves beside decodes.
    """
    if not settings.tpot_target_ms:
        return FixedBudget(settings.token_budget), None
    budget = CostModelBudget(
        CostModel(guess),
        tpot_target_s=settings.tpot_target_ms / 1e3,
        max_budget=settings.token_budget,
        min_budget=min(settings.min_chunk, settings.token_budget),
    )
    return budget, budget.observe
