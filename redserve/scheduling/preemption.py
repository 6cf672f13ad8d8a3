"""Who gives its blocks up when an older sequence needs them.

Only an older sequence may take from a younger one, youngest first, and only from an idle one:
blocks of tokens in flight are being written. Arrival is a total order, so that nobody can take
back what was taken from it, and the oldest sequence always gets what it needs.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.scheduling.arrival_queue import ArrivalQueue
    from redserve.scheduling.block_pool import BlockPool
    from redserve.scheduling.sequence import Sequence


def is_idle(sequence: Sequence) -> bool:
    """Whether no token of the sequence is in flight."""
    return sequence.num_in_flight == 0


def is_parked(sequence: Sequence) -> bool:
    """Whether the sequence is idle before the end of its prompt: it does not make tokens."""
    return sequence.num_in_flight == 0 and not sequence.is_decoding


def anyone(sequence: Sequence) -> bool:
    """Every sequence will do."""
    return True


def choose_victims(
    running: ArrivalQueue,
    claimant: Sequence,
    pool: BlockPool,
    eligible: Callable[[Sequence], bool],
    enough: Callable[[int, list[Sequence]], bool],
) -> list[Sequence] | None:
    """The fewest of the youngest sequences whose blocks are enough.

    Args:
        running: All sequences that hold blocks.
        claimant: Who needs the blocks; only younger ones are chosen, and blocks that it counts
            on itself do not count as freed.
        pool: Knows who shares a block: it is free when all its holders are chosen.
        eligible: Who may be chosen.
        enough: Tells from the number of blocks freed and the victims so far.

    Returns:
        Possibly nobody; None if all of them are not enough: then nobody should lose anything.
    """
    victims: list[Sequence] = []
    given: Counter[int] = Counter()
    num_freed = 0
    spared = frozenset(claimant.hint)
    if enough(num_freed, victims):
        return victims
    for sequence in reversed(running):
        if sequence.arrival <= claimant.arrival:
            break
        if not eligible(sequence):
            continue
        victims.append(sequence)
        for block in sequence.block_table:
            given[block] += 1
            if given[block] == pool.references(block) and block not in spared:
                num_freed += 1
        if enough(num_freed, victims):
            return victims
    return None
