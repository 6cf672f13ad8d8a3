"""Outcomes that tests make up."""

from __future__ import annotations

from hypothesis import strategies as st

from redserve.bench.outcome import Answer, Outcome, Problem
from redserve.slo import End

FULL = Problem(None, "CLIENT_FULL", "too many under way")
BUSY = Problem(End.FAILED, "OVERLOADED", "the queue is full")


def outcome(
    index: int = 0,
    *,
    start_s: float = 0.0,
    ttft_s: float | None = 0.1,
    tpot_s: float = 0.01,
    num_tokens: int = 11,
    num_images: int = 1,
    lag_s: float = 0.0,
    num_first: int = 1,
    problem: Problem | None = None,
) -> Outcome:
    """A request that was sent at `start_s`."""
    first_s = None if ttft_s is None else start_s + ttft_s
    last_s = None if first_s is None else first_s + tpot_s * (num_tokens - 1)
    answer = Answer(
        start_s=start_s,
        end_s=start_s + 0.5 if last_s is None else last_s,
        first_token_s=first_s,
        last_token_s=last_s,
        num_tokens=0 if ttft_s is None else num_tokens,
        num_first=num_first,
        problem=problem,
    )
    return Outcome(index, num_images, start_s - lag_s, 60.0, answer)


@st.composite
def outcomes(draw: st.DrawFn) -> list[Outcome]:
    """Any run."""
    return [
        outcome(
            index,
            start_s=draw(st.floats(0, 100)),
            ttft_s=draw(st.none() | st.floats(0.001, 20)),
            tpot_s=draw(st.floats(0, 1)),
            num_tokens=draw(st.integers(1, 50)),
            num_images=draw(st.integers(0, 8)),
            num_first=draw(st.integers(1, 3)),
            lag_s=draw(st.sampled_from([0.0, 0.001, 1.0])),
            problem=draw(st.sampled_from([None, None, BUSY, FULL])),
        )
        for index in range(draw(st.integers(0, 12)))
    ]
