"""What goes through, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.slo.ended import End
from redserve.slo.recent import RecentValues
from redserve.slo.windows import SlidingSums

if TYPE_CHECKING:
    from redserve.slo.ended import Ended
    from redserve.slo.recent import Percentiles

RATE_WINDOW_S: Final = 60.0
LATENCY_WINDOW_S: Final = 300.0
MAX_VALUES: Final = 4096
"""Of each latency: at 13 requests a second those of five minutes, above that the latest."""
BUCKET_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class TrafficFigures:
    """Rates are per second over the last minute, or since the start if that is less.

    Attributes:
        requests_per_s: Requests that ended.
        failures_per_s: Of these, those that the service failed.
        output_tokens_per_s: Tokens that left.
        ttft, tpot, duration: Of the last five minutes, seconds; `duration` is that of complete
            answers.
    """

    requests_per_s: float
    failures_per_s: float
    output_tokens_per_s: float
    ttft: Percentiles
    tpot: Percentiles
    duration: Percentiles


class Traffic:
    """Remembers what lately happened.

    Args:
        start_s: Now.
    """

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self._ended = SlidingSums(2, BUCKET_S, RATE_WINDOW_S)
        self._tokens = SlidingSums(1, BUCKET_S, RATE_WINDOW_S)
        self._ttft = RecentValues(LATENCY_WINDOW_S, MAX_VALUES)
        self._tpot = RecentValues(LATENCY_WINDOW_S, MAX_VALUES)
        self._duration = RecentValues(LATENCY_WINDOW_S, MAX_VALUES)

    def note_tokens(self, now_s: float, num_tokens: int) -> None:
        """Tokens left."""
        self._tokens.add(now_s, num_tokens)

    def note_first_token(self, now_s: float, waited_s: float) -> None:
        """The first token of a request left, `waited_s` after it came in."""
        self._ttft.add(now_s, waited_s)

    def note(self, now_s: float, ended: Ended) -> None:
        """A request ended at `now_s`; its first token, if there was one, has been noted."""
        self._ended.add(now_s, 1, int(ended.end is End.FAILED))
        if ended.end is not End.COMPLETE:
            return
        self._duration.add(now_s, ended.duration_s)
        tpot_s = ended.time_per_output_token_s
        if tpot_s is not None:
            self._tpot.add(now_s, tpot_s)

    def figures(self, now_s: float) -> TrafficFigures:
        """How it is now."""
        # A window begins with a bucket: what it holds spans up to one bucket more.
        begin_s = (now_s - RATE_WINDOW_S) // BUCKET_S * BUCKET_S
        over_s = max(BUCKET_S, now_s - max(begin_s, self._start_s))
        num_ended, num_failed = self._ended.over(now_s, RATE_WINDOW_S)
        (num_tokens,) = self._tokens.over(now_s, RATE_WINDOW_S)
        return TrafficFigures(
            requests_per_s=num_ended / over_s,
            failures_per_s=num_failed / over_s,
            output_tokens_per_s=num_tokens / over_s,
            ttft=self._ttft.percentiles(now_s),
            tpot=self._tpot.percentiles(now_s),
            duration=self._duration.percentiles(now_s),
        )
