"""What the sampler must know of one sequence besides its logits."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from redserve.domain import SamplingParams


class SamplingState:
    """Parameters and penalty counts of one sequence.

    Counts are dense over the vocabulary, on the logits' device, and made only for sequences that
    use a penalty: one byte, or four, per token of the vocabulary.

    Args:
        params: Every default resolved.
        prompt: Prompt tokens; the repetition penalty counts them.
        outputs: Outputs so far, resumed ones; every penalty counts them.
        vocab_size: Width of the logits.
        device: Of the logits.
    """

    __slots__ = ("_counts", "_seen", "params")

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        outputs: Sequence[int],
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self.params = params
        self._seen: Tensor | None = None
        self._counts: Tensor | None = None
        if params.repetition_penalty != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._seen[torch.tensor([*prompt, *outputs], device=device)] = True
        if params.presence_penalty or params.frequency_penalty:
            self._counts = torch.bincount(
                torch.tensor(list(outputs), dtype=torch.int64), minlength=vocab_size
            ).to(device=device, dtype=torch.float32)

    @property
    def has_penalties(self) -> bool:
        """Whether `penalize` changes anything."""
        return self._seen is not None or self._counts is not None

    def penalize(self, logits: Tensor) -> None:
        """Change float32 logits [vocab] in place; repetition first, as transformers does."""
        params = self.params
        if self._seen is not None:
            penalty = params.repetition_penalty
            harder = torch.where(logits < 0, logits * penalty, logits / penalty)
            torch.where(self._seen, harder, logits, out=logits)
        if self._counts is not None:
            logits -= params.frequency_penalty * self._counts
            logits -= params.presence_penalty * (self._counts > 0)

    def append(self, token_id: int) -> None:
        """Count a token that was generated."""
        if self._seen is not None:
            self._seen[token_id] = True
        if self._counts is not None:
            self._counts[token_id] += 1

    def uniform(self, index: int) -> float:
        """The number in [0, 1) that decides output `index`: a function of (seed, index) alone.

        So a sequence that is preempted, batched differently or moved to another replica draws the
        same numbers, with no generator state to keep.
        """
        seed = self.params.seed & 0xFFFF_FFFF_FFFF_FFFF
        digest = blake2b(index.to_bytes(8, "little"), digest_size=8, key=seed.to_bytes(8, "little"))
        return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53
