"""The table of transitions is the whole truth."""

from __future__ import annotations

import itertools

import pytest

from redserve.domain.content_chain import ContentChain
from redserve.domain.layout import MediaLayout
from redserve.errors import InternalError
from redserve.scheduling import EmbeddingTracker
from redserve.scheduling.sequence import TRANSITIONS, Move, Phase, Sequence
from tests.scheduling.drive import text


def make_sequence(phase: Phase) -> Sequence:
    layout = MediaLayout(())
    token_ids = [1, 2, 3]
    return Sequence(
        request=text("a", (1, 2, 3)),
        arrival=0,
        layout=layout,
        tracker=EmbeddingTracker(layout, 3),
        chain=ContentChain(token_ids, layout, 4),
        token_ids=token_ids,
        phase=phase,
    )


@pytest.mark.parametrize(("phase", "move"), list(itertools.product(Phase, Move)))
def test_only_the_arrows_of_the_table_exist(phase: Phase, move: Move) -> None:
    sequence = make_sequence(phase)
    if (phase, move) in TRANSITIONS:
        sequence.move(move)
        assert sequence.phase is TRANSITIONS[phase, move]
    else:
        with pytest.raises(InternalError, match="cannot"):
            sequence.move(move)
        assert sequence.phase is phase


def test_finished_is_final_and_reached_from_everywhere() -> None:
    assert not [arrow for arrow in TRANSITIONS if arrow[0] is Phase.FINISHED]
    ends = {phase for (phase, _), target in TRANSITIONS.items() if target is Phase.FINISHED}
    assert ends == set(Phase) - {Phase.FINISHED}
