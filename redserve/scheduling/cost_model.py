"""How long a step takes, learnt from the steps that ran.

    seconds = a + b * prefill + c * prefill * context + d * decodes + e * decode context

The coefficients are fitted by recursive least squares with forgetting: only five sums of products
per pair of features are kept. They are kept non-negative, because a step never gets shorter by
more work, and a negative one would let the budget run away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.scheduling.micro_batch import MicroBatch

NUM_COEFFICIENTS = 5

# Typical sizes of the features, so that the sums are of one order of magnitude.
_SCALES = (1.0, 1e3, 1e6, 1e2, 1e5)
_SWEEPS = 4
_NUM_TRUSTED = 16
_LARGEST_SURPRISE = 4.0


@dataclass(frozen=True, slots=True)
class StepFeatures:
    """What the time of a step depends on.

    Attributes:
        prefill_tokens: Tokens of all chunks that are not decodes.
        prefill_attention: Sum over these tokens of the tokens that each attends to.
        num_decodes: Decodes.
        decode_context_tokens: Sum over the decodes of the tokens that each attends to.
    """

    prefill_tokens: int
    prefill_attention: int
    num_decodes: int
    decode_context_tokens: int

    @classmethod
    def of(cls, batch: MicroBatch) -> StepFeatures:
        """The features of a micro-batch."""
        prefill = attention = decodes = context = 0
        for chunk in batch.chunks:
            if chunk.is_decode:
                decodes += 1
                context += chunk.end
            else:
                prefill += chunk.num_tokens
                attention += attended(chunk.start, chunk.num_tokens)
        return cls(prefill, attention, decodes, context)


def attended(start: int, num_tokens: int) -> int:
    """Sum of the tokens that positions [start, start + num_tokens) attend to."""
    return num_tokens * (2 * start + num_tokens + 1) // 2


class CostModel:
    """Predicts the seconds of a step and learns from the measured ones.

    Args:
        coefficients: (a, b, c, d, e) in seconds, none negative: the guess to start from. Measured
            ones of the same model and device make the first budgets good.
        trust: Weight of the guess, in observations.
        forgetting: Weight of an observation relative to the next one; 0.99 remembers about 100.
    """

    def __init__(
        self,
        coefficients: tuple[float, float, float, float, float],
        *,
        trust: float = 0.1,
        forgetting: float = 0.99,
    ) -> None:
        self._guess = [value * scale for value, scale in zip(coefficients, _SCALES, strict=True)]
        self._theta = list(self._guess)
        self._trust = trust
        self._forgetting = forgetting
        self._products = [[0.0] * NUM_COEFFICIENTS for _ in range(NUM_COEFFICIENTS)]
        self._targets = [0.0] * NUM_COEFFICIENTS
        self.num_observed = 0

    @property
    def coefficients(self) -> tuple[float, ...]:
        """(a, b, c, d, e) as fitted now, in seconds."""
        return tuple(value / scale for value, scale in zip(self._theta, _SCALES, strict=True))

    def predict(self, features: StepFeatures) -> float:
        """Seconds that a step with these features takes."""
        return sum(t * x for t, x in zip(self._theta, _vector(features), strict=True))

    def observe(self, features: StepFeatures, seconds: float) -> None:
        """Learn from a step. A single odd one (a pause, a first run) counts for a limited amount.

        Args:
            features: Of the micro-batch that ran.
            seconds: From its launch to its result; with pipeline stages through all of them.
        """
        if self.num_observed >= _NUM_TRUSTED:
            seconds = min(seconds, _LARGEST_SURPRISE * max(self.predict(features), 1e-6))
        self.num_observed += 1
        vector = _vector(features)
        for row, x in enumerate(vector):
            products = self._products[row]
            for column, y in enumerate(vector):
                products[column] = self._forgetting * products[column] + x * y
            self._targets[row] = self._forgetting * self._targets[row] + x * seconds
        self._fit()

    def _fit(self) -> None:
        """Coordinate descent to the least squares with no negative coefficient, from the last."""
        theta = self._theta
        for _ in range(_SWEEPS):
            for n, products in enumerate(self._products):
                others = sum(p * t for p, t in zip(products, theta, strict=True))
                others -= products[n] * theta[n]
                target = self._targets[n] + self._trust * self._guess[n] - others
                theta[n] = max(0.0, target / (products[n] + self._trust))


def _vector(features: StepFeatures) -> tuple[float, ...]:
    return (
        1.0,
        features.prefill_tokens / _SCALES[1],
        features.prefill_attention / _SCALES[2],
        features.num_decodes / _SCALES[3],
        features.decode_context_tokens / _SCALES[4],
    )
