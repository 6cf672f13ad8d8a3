"""The sampler against a simple reference, and against itself in other company."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from redserve.domain import SamplingParams
from redserve_llm.runner import sampler
from redserve_llm.runner.sampler import Draw, sample
from redserve_llm.runner.sampling_state import SamplingState

VOCAB = 40
CPU = torch.device("cpu")


def _state(
    prompt: tuple[int, ...] = (1,), outputs: tuple[int, ...] = (), **params: Any
) -> SamplingState:
    return SamplingState(SamplingParams(**params), prompt, outputs, VOCAB, CPU)


def _logits(seed: int, rows: int = 1, vocab: int = VOCAB) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def _reference(logits: torch.Tensor, params: SamplingParams, uniform: float) -> int:
    """transformers' own warpers, then the inverse of the cumulative distribution, by hand."""
    scores = logits[None].double()
    ids = torch.tensor([[0]])
    scores = TemperatureLogitsWarper(params.temperature)(ids, scores)
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(ids, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(ids, scores)
    probabilities = scores.softmax(-1)[0].tolist()
    ranked = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    total = 0.0
    for token in ranked:
        total += probabilities[token]
        if uniform < total:
            return token
    return ranked[0]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.1, 3.0),
    top_k=st.integers(0, VOCAB + 5),
    top_p=st.floats(0.05, 1.0),
)
def test_draws_as_the_reference(seed: int, temperature: float, top_k: int, top_p: float) -> None:
    logits = _logits(seed)
    state = _state(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    want = _reference(logits[0], state.params, state.uniform(3))
    assert sample(logits, [Draw(state, 3)])[0].token_id == want


@pytest.mark.parametrize("candidates", [1, 4, 1024])
def test_the_nucleus_does_not_depend_on_where_it_is_looked_for(
    candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nucleus larger than the first look is found by sorting the whole row."""
    monkeypatch.setattr(sampler, "NUM_CANDIDATES", candidates)
    state = _state(temperature=2.0, top_p=0.9, seed=5)
    for index in range(50):
        logits = _logits(index)
        want = _reference(logits[0], state.params, state.uniform(index))
        assert sample(logits, [Draw(state, index)])[0].token_id == want


def test_draws_follow_the_distribution() -> None:
    logits = _logits(1)
    state = _state(temperature=1.0, seed=9)
    counts = torch.zeros(VOCAB)
    num_draws = 4000
    for index in range(num_draws):
        counts[sample(logits, [Draw(state, index)])[0].token_id] += 1
    want = logits[0].softmax(-1)
    assert (counts / num_draws - want).abs().max() < 0.03


def test_greedy_is_the_first_argmax_of_float32() -> None:
    logits = torch.zeros(2, VOCAB, dtype=torch.bfloat16)
    logits[0, [7, 9]] = 1.5
    logits[1, 3] = 1.5
    tokens = sample(logits, [Draw(_state(), 0)] * 2)
    assert [token.token_id for token in tokens] == [7, 3]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_row_does_not_see_its_neighbours(data: st.DataObject) -> None:
    params: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 0.7, 1.5]),
            "top_k": st.sampled_from([0, 5]),
            "top_p": st.sampled_from([0.5, 1.0]),
            "seed": st.integers(0, 3),
            "repetition_penalty": st.sampled_from([1.0, 1.3]),
            "frequency_penalty": st.sampled_from([0.0, 0.4]),
            "num_logprobs": st.sampled_from([None, 2]),
        }
    )
    rows = data.draw(st.lists(params, min_size=1, max_size=6))
    logits = _logits(data.draw(st.integers(0, 99)), len(rows))
    draws = [Draw(_state((1, 2), (5, 5, 6), **row), index) for index, row in enumerate(rows)]
    together = sample(logits, draws)
    alone = [sample(logits[n : n + 1], [draw])[0] for n, draw in enumerate(draws)]
    assert together == alone


def test_logits_are_not_changed() -> None:
    logits = _logits(2)
    before = logits.clone()
    sample(logits, [Draw(_state((3,), (4,), repetition_penalty=2.0, presence_penalty=1.0), 1)])
    assert torch.equal(logits, before)


def test_repetition_penalty_as_transformers() -> None:
    logits = _logits(4)
    prompt, outputs = (1, 2, 2), (7,)
    state = _state(prompt, outputs, repetition_penalty=1.7)
    ids = torch.tensor([[*prompt, *outputs]])
    want = RepetitionPenaltyLogitsProcessor(1.7)(ids, logits.clone())
    got = logits[0].clone()
    state.penalize(got)
    assert torch.equal(got, want[0])
    state.append(11)
    want = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([[*ids[0], 11]]), logits.clone())
    got = logits[0].clone()
    state.penalize(got)
    assert torch.equal(got, want[0])


def test_presence_and_frequency_count_outputs_only() -> None:
    state = _state((1, 1, 1), (5,), presence_penalty=0.5, frequency_penalty=0.25)
    state.append(5)
    state.append(6)
    logits = torch.zeros(VOCAB)
    state.penalize(logits)
    assert logits[5] == -0.5 - 2 * 0.25
    assert logits[6] == -0.5 - 0.25
    assert logits[1] == 0


def test_logprobs_are_the_models_own() -> None:
    logits = _logits(6)
    state = _state(temperature=0.5, top_k=3, seed=1, num_logprobs=4, repetition_penalty=1.5)
    token = sample(logits, [Draw(state, 0)])[0]
    want = logits[0].log_softmax(-1)
    assert token.logprob == pytest.approx(float(want[token.token_id]))
    best, order = want.topk(4)
    assert [top[0] for top in token.top] == order.tolist()
    assert [top[1] for top in token.top] == pytest.approx(best.tolist())
    chosen_only = sample(logits, [Draw(_state(num_logprobs=0), 0)])[0]
    assert chosen_only.top == ()
    assert chosen_only.logprob is not None


def test_uniform_is_a_function_of_seed_and_index() -> None:
    numbers = {_state(seed=seed).uniform(index) for seed in range(20) for index in range(20)}
    assert len(numbers) == 400
    assert all(0 <= number < 1 for number in numbers)
    assert _state(seed=2**64 - 1).uniform(0) != _state(seed=0).uniform(0)
    mean = sum(numbers) / len(numbers)
    assert math.isclose(mean, 0.5, abs_tol=0.05)
