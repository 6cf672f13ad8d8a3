"""Who is where: every sequence of one replica, and sums that change with each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.errors import InternalError
from redserve.scheduling.arrival_queue import ArrivalQueue
from redserve.scheduling.sequence import Phase, Sequence

if TYPE_CHECKING:
    from redserve.domain.request import SequenceKey


class Roster:
    """Index of sequences by key, phase and readiness.

    Attributes:
        sequences: All that are not gone; finished ones stay while tokens of them are in flight.
        running: Those that may hold blocks.
        waiting: Waiting and preempted ones.
        admissible: Those of `waiting` that have a schedulable token.
        rotation: Idle decoding sequences; the one that has not run for longest is first.
        num_decoding: Decoding sequences, idle or with a token on its way.
        num_schedulable: Schedulable tokens of all.
        num_preempted: Sequences in phase PREEMPTED.
    """

    def __init__(self) -> None:
        self.sequences: dict[SequenceKey, Sequence] = {}
        self.running = ArrivalQueue()
        self.waiting = ArrivalQueue()
        self.admissible = ArrivalQueue()
        self.rotation: dict[Sequence, None] = {}
        self.num_schedulable = 0
        self.num_preempted = 0
        self._sampling: dict[Sequence, None] = {}

    @property
    def num_decoding(self) -> int:
        """Sequences that decode: idle, or with the next token on its way."""
        return len(self.rotation) + len(self._sampling)

    def live(self, key: SequenceKey) -> Sequence | None:
        """The sequence, unless it is unknown or finished."""
        sequence = self.sequences.get(key)
        return None if sequence is None or sequence.phase is Phase.FINISHED else sequence

    def refresh(self, sequence: Sequence) -> None:
        """Bring the sums and the membership of one sequence up to date after a change."""
        phase = sequence.phase
        if phase is Phase.RUNNING:
            self._refresh_running(sequence)
            return
        count = 0 if phase is Phase.FINISHED else sequence.num_schedulable
        self._count(sequence, count)
        self.rotation.pop(sequence, None)
        self._sampling.pop(sequence, None)
        if count == 0:
            self.admissible.remove(sequence)
        elif sequence not in self.admissible:
            self.admissible.add(sequence)

    def _refresh_running(self, sequence: Sequence) -> None:
        # Twice per decode and step: the tokens left to run say it all, without asking the tracker.
        num_left = sequence.num_tokens - sequence.next_start
        if num_left == 0:
            self._sampling[sequence] = None
            self.rotation.pop(sequence, None)
            self._count(sequence, 0)
            return
        self._sampling.pop(sequence, None)
        if num_left == 1 and sequence.num_outputs > 0:
            self.rotation.setdefault(sequence)
            self._count(sequence, 1)
        else:
            self.rotation.pop(sequence, None)
            self._count(sequence, sequence.num_schedulable)

    def _count(self, sequence: Sequence, num_schedulable: int) -> None:
        self.num_schedulable += num_schedulable - sequence.num_counted
        sequence.num_counted = num_schedulable

    def check_integrity(self) -> None:
        """Prove that sums and memberships are what a fresh count gives.

        Raises:
            InternalError: They are not.
        """
        alive = [s for s in self.sequences.values() if s.phase is not Phase.FINISHED]
        idle = [s for s in alive if s.phase is not Phase.RUNNING]
        facts = {
            "schedulable tokens": (self.num_schedulable, sum(s.num_schedulable for s in alive)),
            "running": (set(self.running), {s for s in alive if s.phase is Phase.RUNNING}),
            "waiting": (set(self.waiting), set(idle)),
            "admissible": (set(self.admissible), {s for s in idle if s.num_schedulable}),
            "rotation": (set(self.rotation), {s for s in self.running if s.is_decoding}),
            "sampling": (
                set(self._sampling),
                {s for s in self.running if s.next_start == s.num_tokens},
            ),
            "preempted": (self.num_preempted, sum(s.phase is Phase.PREEMPTED for s in idle)),
        }
        for name, (kept, counted) in facts.items():
            if kept != counted:
                raise InternalError(f"{name}: kept {kept}, counted {counted}")
