"""Events of an answer in OpenAI's shapes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redserve.telemetry.first_token import first_token_parts
from redserve.telemetry.transport_times import transport_times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redserve.domain import TokenOutput, Usage
    from redserve.slo import Judged
    from redserve.telemetry.timeline import Bar, Timeline
    from redserve_router.answer import Finished, NewTokens, Progress, Started

_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True)
class ReplyMaker:
    """Makes the replies to one request.

    Attributes:
        token_text: Text of one token id.
        logprobs: Whether tokens and their probabilities are shown.
    """

    started: Started
    logprobs: bool
    token_text: Callable[[int], str]
    created: int = field(default_factory=lambda: int(time.time()))

    def opening_chunk(self) -> dict[str, Any]:
        """First chunk of a stream: who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def text_chunk(self, event: NewTokens) -> dict[str, Any] | None:
        """A chunk of a stream; None when there is nothing to tell yet."""
        shown = self._logprobs(event.tokens)
        if not event.text and not shown:
            return None
        return self._chunk({"content": event.text}, logprobs=shown)

    def closing_chunk(self, event: Finished) -> dict[str, Any]:
        """The chunk with the reason of the end."""
        return _with_timeline(self._chunk({}, finish_reason=event.reason.value), event)

    def usage_chunk(self, event: Finished) -> dict[str, Any]:
        """The very last chunk, without choices, if it was asked for."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(event.usage)}

    def completion(
        self, text: str, tokens: Sequence[TokenOutput], event: Finished
    ) -> dict[str, Any]:
        """A whole answer."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": self._logprobs(tokens) if self.logprobs else None,
            "finish_reason": event.reason.value,
        }
        reply = {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": _usage(event.usage),
        }
        return _with_timeline(reply, event)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.started.request_id}",
            "object": kind,
            "created": self.created,
            "model": self.started.model,
        }

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _logprobs(self, tokens: Sequence[TokenOutput]) -> dict[str, Any] | None:
        if not self.logprobs or not tokens:
            return None
        return {"content": [self._token(token) for token in tokens], "refusal": None}

    def _token(self, token: TokenOutput) -> dict[str, Any]:
        texts = {top.token_id: top.text for top in token.top}
        text = texts.get(token.token_id)
        entry = _entry(
            self.token_text(token.token_id) if text is None else text,
            0.0 if token.logprob is None else token.logprob,
        )
        entry["top_logprobs"] = [_entry(top.text, top.logprob) for top in token.top]
        return entry


def timeline_object(timeline: Timeline) -> dict[str, Any]:
    """A timeline as JSON; times in nanoseconds since the Unix epoch."""
    return {
        "request_id": timeline.request_id,
        "received_ns": timeline.received_ns,
        "first_token_ns": timeline.first_token_ns,
        "finished_ns": timeline.finished_ns,
        "overlap_ratio": timeline.overlap_ratio,
        "first_token_parts_ns": first_token_parts(timeline),
        "transport": [
            {
                "item_index": item.item_index,
                "exposed_ns": item.exposed_ns,
                "hidden_ns": item.hidden_ns,
                "num_attempts": item.num_attempts,
            }
            for item in transport_times(timeline.bars)
        ],
        "bars": [_bar(bar) for bar in timeline.bars],
    }


def judged_object(judged: Judged) -> dict[str, Any]:
    """What an answer is judged by, null for what it did not have, and its events per promise."""
    return {
        "time_to_first_token_s": judged.time_to_first_token_s,
        "time_per_output_token_s": judged.time_per_output_token_s,
        "request_duration_s": judged.request_duration_s,
        "encode_latency_s": judged.encode_latency_s,
        "events": [
            {"slo": slo, "good": tally.good, "bad": tally.bad} for slo, tally in judged.events
        ],
    }


def progress_object(progress: Progress) -> dict[str, Any]:
    """What was just done, in the shapes of a timeline."""
    return {
        "redserve": {
            "progress": {
                "at_ns": progress.at_ns,
                "awaited_items": list(progress.awaited_items),
                "bars": [_bar(bar) for bar in progress.bars],
            }
        }
    }


def _bar(bar: Bar) -> dict[str, Any]:
    return {
        "lane": bar.lane,
        "name": bar.name,
        "start_ns": bar.start_ns,
        "end_ns": bar.end_ns,
        "item_index": bar.item_index,
        "num_tokens": bar.num_tokens,
        "detail": bar.detail,
    }


def _with_timeline(reply: dict[str, Any], event: Finished) -> dict[str, Any]:
    if event.timeline is not None and event.judged is not None:
        reply["redserve"] = {
            "timeline": timeline_object(event.timeline),
            "judged": judged_object(event.judged),
        }
    return reply


def _entry(text: str, logprob: float) -> dict[str, Any]:
    # Part of a character has no text of its own, and its bytes are not known here.
    data = None if _REPLACEMENT in text else list(text.encode())
    return {"token": text, "logprob": logprob, "bytes": data}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_output_tokens,
        "total_tokens": usage.num_prompt_tokens + usage.num_output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.num_cached_tokens,
            "image_tokens": usage.num_item_tokens,
        },
    }
