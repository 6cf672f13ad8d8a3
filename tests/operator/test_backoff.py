from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve_operator.kube.backoff import Backoff


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_the_longest_and_chance_takes_at_most_its_share(
    failures: int, chance: float
) -> None:
    backoff = Backoff(0.5, 60.0)
    wait = backoff.wait_s(failures, chance)
    full = 60.0 if failures > 8 else min(0.5 * 2 ** (failures - 1), 60.0)
    assert full / 2 <= wait <= full


def test_the_server_is_never_asked_sooner_than_it_wants() -> None:
    backoff = Backoff(1.0, 10.0)
    assert backoff.wait_s(1, 0.0, at_least_s=30.0) == pytest.approx(30.0)
    assert 30.0 < backoff.wait_s(1, 0.9, at_least_s=30.0) <= 33.0
    assert backoff.wait_s(4, 0.0, at_least_s=0.1) == pytest.approx(8.0)
