"""A micro-batch while it is being filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.scheduling.micro_batch import ScheduledChunk
    from redserve.scheduling.sequence import Sequence


class BatchPlan:
    """Chunks chosen so far and the budget that is left.

    Args:
        budget: Tokens that the micro-batch may hold.
        decode_quota: Decodes that it may hold.

    Attributes:
        budget: As given.
        decode_quota: As given.
        left: Tokens of it that are not used.
        chunks: Chosen so far.
        num_decodes: How many of them are decodes.
        sequences: Whose chunks they are.
        passed_over: Sequences that had schedulable tokens and got none by a rule of ours.
    """

    def __init__(self, budget: int, decode_quota: int) -> None:
        self.budget = budget
        self.decode_quota = decode_quota
        self.left = budget
        self.chunks: list[ScheduledChunk] = []
        self.num_decodes = 0
        self.sequences: set[Sequence] = set()
        self.passed_over: dict[Sequence, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was chosen yet."""
        return not self.chunks

    def add(self, sequence: Sequence, chunk: ScheduledChunk) -> None:
        """Take a chunk in. One that exceeds the budget leaves no room for another."""
        self.sequences.add(sequence)
        self.passed_over.pop(sequence, None)
        self.chunks.append(chunk)
        self.left = max(0, self.left - chunk.num_tokens)
        self.num_decodes += chunk.is_decode

    def pass_over(self, sequence: Sequence) -> None:
        """Note that a sequence could have run and was held back."""
        self.passed_over[sequence] = None
