"""From logits to tokens.

In transformers' order: penalties, temperature, top-k, top-p, draw. The draw inverts the cumulative
distribution over tokens by falling probability at one number that depends on (seed, index) only;
what a row draws never depends on the other rows of its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from redserve_llm.runner.interface import SampledToken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from redserve_llm.runner.sampling_state import SamplingState

NUM_CANDIDATES = 1024
"""The nucleus is looked for among so many most likely tokens before the whole row is sorted."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A row of logits to sample from.

    Attributes:
        state: Of its sequence.
        index: Which output token of the sequence it is, resumed ones counted.
    """

    state: SamplingState
    index: int


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[SampledToken]:
    """Choose one token per row.

    Args:
        logits: [n, vocab], any float dtype; not changed.
        draws: One per row. Their states are read, not told of the choice.

    Returns:
        One token per row. A greedy row gets the exact argmax of its float32 logits (the first of
        equal ones). Logprobs are those of the model, before penalties and temperature.
    """
    raw = logits.float()
    shaped = _penalized(raw, draws)
    tokens: list[int] = shaped.argmax(-1).tolist()
    for row, draw in enumerate(draws):
        if not draw.state.params.is_greedy:
            tokens[row] = _draw(shaped[row], draw)
    return _with_logprobs(raw, tokens, draws)


def _penalized(raw: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Logits after penalties; the argument itself if there are none."""
    rows = [row for row, draw in enumerate(draws) if draw.state.has_penalties]
    if not rows:
        return raw
    shaped = raw.clone()
    for row in rows:
        draws[row].state.penalize(shaped[row])
    return shaped


def _draw(logits: Tensor, draw: Draw) -> int:
    params = draw.state.params
    # float64: over 150,000 tokens a float32 sum is off by more than a rare token's probability.
    scores = logits.double() / params.temperature
    probabilities, order = _kept(scores, params.top_k, params.top_p)
    cumulative = probabilities.cumsum(0)
    target = draw.state.uniform(draw.index) * cumulative[-1]
    place = int(torch.searchsorted(cumulative, target, right=True))
    return int(order[min(place, len(order) - 1)])


def _kept(scores: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Probabilities (not normalised) and ids of the tokens that may be drawn, most likely first.

    Top-p counts within what top-k leaves, as in transformers.
    """
    vocab = scores.shape[0]
    if top_k > 0:
        best, order = scores.topk(min(top_k, vocab))
        return _nucleus(best.softmax(0), order, top_p)
    if top_p < 1.0:
        best, order = scores.topk(min(NUM_CANDIDATES, vocab))
        probabilities = (best - scores.logsumexp(0)).exp()
        if probabilities.sum() >= top_p:
            return _nucleus(probabilities, order, top_p)
    best, order = scores.sort(descending=True, stable=True)
    return _nucleus(best.softmax(0), order, top_p)


def _nucleus(probabilities: Tensor, order: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The smallest head whose probabilities reach `top_p`."""
    if top_p >= 1.0:
        return probabilities, order
    before = probabilities.cumsum(0) - probabilities
    size = max(1, int((before < top_p).sum()))
    return probabilities[:size], order[:size]


def _with_logprobs(raw: Tensor, tokens: Sequence[int], draws: Sequence[Draw]) -> list[SampledToken]:
    sampled = [SampledToken(token) for token in tokens]
    for row, draw in enumerate(draws):
        num = draw.state.params.num_logprobs
        if num is None:
            continue
        logprobs = raw[row].log_softmax(-1)
        best, order = logprobs.topk(min(num, len(logprobs)))
        top = tuple(zip(order.tolist(), best.tolist(), strict=True))
        sampled[row] = SampledToken(tokens[row], float(logprobs[tokens[row]]), top)
    return sampled
