"""One sequence from admission to its end: tokens become text, and an end is recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.domain import FinishReason, TokenLogprob, TokenOutput, Usage
from redserve_llm.detokenizer import Detokenizer
from redserve_llm.sequence_timeline import SequenceTimeline

if TYPE_CHECKING:
    from collections.abc import Collection

    from redserve.domain import SequenceRequest
    from redserve_llm.detokenizer import Vocabulary
    from redserve_llm.runner.interface import SampledToken


class LiveSequence:
    """State of one sequence that the scheduler does not need.

    Args:
        request: What was asked for; `sampling.max_tokens` counts resumed tokens too.
        vocabulary: For text.
        end_token_ids: The checkpoint's.
        lane: Name of the replica, for the timeline.
        arrived_ns: When the request came in.
        watched: Whether its bars are told as they are made.

    Attributes:
        num_cached_tokens: Prompt tokens that the prefix cache had; set by the engine.
        reason: Why the output ended, or None while it has not. Resumed tokens count: a sequence
            whose first replica died right after the last token has ended before it begins.
    """

    __slots__ = (
        "_detokenizer",
        "_ends",
        "_num_outputs",
        "_vocabulary",
        "num_cached_tokens",
        "reason",
        "request",
        "timeline",
        "watched",
    )

    def __init__(
        self,
        request: SequenceRequest,
        vocabulary: Vocabulary,
        end_token_ids: Collection[int],
        lane: str,
        arrived_ns: int,
        *,
        watched: bool = False,
    ) -> None:
        sampling = request.sampling
        own = frozenset() if sampling.ignore_eos else frozenset(end_token_ids)
        self.request = request
        self.watched = watched
        self.num_cached_tokens = 0
        self.reason: FinishReason | None = None
        self.timeline = SequenceTimeline(lane, arrived_ns)
        self._vocabulary = vocabulary
        self._ends = own | frozenset(sampling.stop_token_ids)
        self._detokenizer = Detokenizer(vocabulary, sampling.stop)
        self._num_outputs = 0
        # What these tokens completed was sent by the replica that made them; what they left
        # unfinished there is unfinished here too, because text is a function of the tokens alone.
        for token_id in request.resume_token_ids:
            self._take(token_id)

    @property
    def num_outputs(self) -> int:
        """Output tokens so far, resumed ones included."""
        return self._num_outputs

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(
            num_prompt_tokens=self.request.num_prompt_tokens,
            num_output_tokens=self._num_outputs,
            num_cached_tokens=self.num_cached_tokens,
            num_item_tokens=sum(item.num_rows for item in self.request.items),
        )

    def accept(self, sampled: SampledToken) -> tuple[str, TokenOutput]:
        """Take a token; sets `reason` if it is the last one.

        Returns:
            The text that it completes, all that was held back if it is the last one; and the token
            in the form that clients get.
        """
        text = self._take(sampled.token_id)
        top = tuple(
            TokenLogprob(token_id, self._vocabulary.token_text(token_id), logprob)
            for token_id, logprob in sampled.top
        )
        return text, TokenOutput(sampled.token_id, sampled.logprob, top)

    def _take(self, token_id: int) -> str:
        if self.reason is not None:
            return ""
        self._num_outputs += 1
        if token_id in self._ends:
            # An end token is like a stop text: it is counted, and is no part of the text.
            self.reason = FinishReason.STOP
            return self._detokenizer.flush()
        text = self._detokenizer.push(token_id)
        if not self._detokenizer.stopped and self._num_outputs >= self.request.sampling.max_tokens:
            self.reason = FinishReason.LENGTH
            text += self._detokenizer.flush()
        if self._detokenizer.stopped:
            self.reason = FinishReason.STOP
        return text
