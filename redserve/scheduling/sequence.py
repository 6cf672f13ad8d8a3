"""A request inside one LLM replica, and the only state machine of the scheduler.

    WAITING --admit--> RUNNING --preempt--> PREEMPTED --resume--> RUNNING
       |                  |                     |
       +------finish------+-------finish--------+------> FINISHED

Waiting for embeddings is not a state: it is `EmbeddingTracker.ready_prefix` being short. Nor is
decoding one: it is one known token being left to compute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from redserve.errors import InternalError

if TYPE_CHECKING:
    from redserve.domain.content_chain import ContentChain
    from redserve.domain.layout import MediaLayout
    from redserve.domain.request import SequenceKey, SequenceRequest
    from redserve.scheduling.embedding_tracker import EmbeddingTracker


class Phase(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class Move(Enum):
    """What may happen to a sequence."""

    ADMIT = "admit"
    PREEMPT = "preempt"
    RESUME = "resume"
    FINISH = "finish"


TRANSITIONS: dict[tuple[Phase, Move], Phase] = {
    (Phase.WAITING, Move.ADMIT): Phase.RUNNING,
    (Phase.RUNNING, Move.PREEMPT): Phase.PREEMPTED,
    (Phase.PREEMPTED, Move.RESUME): Phase.RUNNING,
    (Phase.WAITING, Move.FINISH): Phase.FINISHED,
    (Phase.RUNNING, Move.FINISH): Phase.FINISHED,
    (Phase.PREEMPTED, Move.FINISH): Phase.FINISHED,
}


@dataclass(eq=False, slots=True)
class Sequence:
    """Progress of one request. Owned and changed by the scheduler alone; others may read.

    Attributes:
        request: What was asked for.
        arrival: Counts up with every request: lower is older and goes first.
        layout: Where its items lie in the prompt.
        tracker: Which of its embedding rows are here.
        chain: Digests of its prefixes, one per block.
        token_ids: Prompt, resumed outputs and outputs so far.
        phase: Changed by `move` only.
        num_computed: Tokens whose keys and values are in the cache.
        num_in_flight: Tokens scheduled but not updated yet; they follow the computed ones.
        block_table: Block n holds positions [n * block_size, (n + 1) * block_size).
        num_committed: Blocks of the table that were offered to the prefix cache.
        hint: Cached blocks that a sequence without blocks counts on; not held by it.
        num_held_back: Steps in a row in which it had tokens to run and was passed over.
        num_cached: Prompt tokens that the prefix cache had when it was admitted first.
        num_preemptions: How often it lost its blocks.
        num_counted: Its share in the roster's sum of schedulable tokens.
        was_aborted: Whether it was ended before its last output.
    """

    request: SequenceRequest
    arrival: int
    layout: MediaLayout
    tracker: EmbeddingTracker
    chain: ContentChain
    token_ids: list[int]
    phase: Phase = Phase.WAITING
    num_computed: int = 0
    num_in_flight: int = 0
    block_table: list[int] = field(default_factory=list)
    num_committed: int = 0
    hint: tuple[int, ...] = ()
    num_held_back: int = 0
    num_cached: int = 0
    num_preemptions: int = 0
    num_counted: int = 0
    was_aborted: bool = False

    @property
    def key(self) -> SequenceKey:
        """Identity of the request in this replica."""
        return self.request.key

    @property
    def num_tokens(self) -> int:
        """Tokens known: prompt, resumed outputs and outputs."""
        return len(self.token_ids)

    @property
    def num_outputs(self) -> int:
        """Tokens generated, here or by the replica that it was resumed from."""
        return len(self.token_ids) - len(self.request.token_ids)

    @property
    def num_outputs_left(self) -> int:
        """Tokens that it may still generate."""
        return self.request.sampling.max_tokens - self.num_outputs

    @property
    def next_start(self) -> int:
        """First position that is neither computed nor in flight."""
        return self.num_computed + self.num_in_flight

    @property
    def ready_end(self) -> int:
        """One past the last position that could run now: outputs need no embeddings."""
        ready = self.tracker.ready_prefix()
        return ready if ready < len(self.request.token_ids) else len(self.token_ids)

    @property
    def is_encoding(self) -> bool:
        """Whether embeddings of its prompt are still to come."""
        return self.tracker.ready_prefix() < len(self.request.token_ids)

    @property
    def num_schedulable(self) -> int:
        """Schedulable tokens: ready, not computed, not in flight, not promised by the cache."""
        return max(0, self.ready_end - max(self.next_start, self.tracker.covered))

    @property
    def is_decoding(self) -> bool:
        """Whether all that is left to run is the last output."""
        return self.num_tokens - self.next_start == 1 and self.num_outputs > 0

    def move(self, move: Move) -> None:
        """Follow an arrow of `TRANSITIONS`.

        Raises:
            InternalError: The table has no such arrow.
        """
        target = TRANSITIONS.get((self.phase, move))
        if target is None:
            raise InternalError(f"{self.key}: cannot {move.value} while {self.phase.value}")
        self.phase = target
