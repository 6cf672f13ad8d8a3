"""Where the time of a request went; the last few are kept for `redserve trace`."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from redserve.errors import InvalidArgument
from redserve.telemetry.clock import now_ns
from redserve.telemetry.timeline import Bar, Timeline, overlap_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class TimelineBuilder:
    """Collects the bars of one request.

    Attributes:
        first_token_ns: When the first token left; 0 before that.
        listener: Hears every bar as it comes; None while nobody watches.
    """

    def __init__(self, request_id: str, lane: str, received_ns: int) -> None:
        self._request_id = request_id
        self._lane = lane
        self._received_ns = received_ns
        self._bars: list[Bar] = []
        self._finished_ns = 0
        self.first_token_ns = 0
        self.listener: Callable[[tuple[Bar, ...]], None] | None = None

    @property
    def bars(self) -> tuple[Bar, ...]:
        """All so far, as they came."""
        return tuple(self._bars)

    def add(
        self,
        name: str,
        start_ns: int,
        *,
        item_index: int | None = None,
        num_tokens: int = 0,
        detail: str = "",
    ) -> None:
        """A bar of the router itself, from `start_ns` until now."""
        bar = Bar(self._lane, name, start_ns, now_ns(), item_index, num_tokens, detail)
        self.extend((bar,))

    def extend(self, bars: Iterable[Bar]) -> None:
        """Bars of another process."""
        kept = tuple(bars)
        self._bars.extend(kept)
        if self.listener is not None:
            self.listener(kept)

    def build(self) -> Timeline:
        """The timeline of a request that has ended: the first call says when."""
        self._finished_ns = self._finished_ns or now_ns()
        bars = tuple(sorted(self._bars, key=lambda bar: (bar.start_ns, bar.end_ns, bar.lane)))
        return Timeline(
            request_id=self._request_id,
            bars=bars,
            overlap_ratio=overlap_ratio(bars),
            received_ns=self._received_ns,
            first_token_ns=self.first_token_ns,
            finished_ns=self._finished_ns,
        )


class TimelineStore:
    """The last timelines, by request id."""

    def __init__(self, num_timelines: int) -> None:
        self._num_timelines = num_timelines
        self._timelines: OrderedDict[str, Timeline] = OrderedDict()

    def keep(self, timeline: Timeline) -> None:
        """Keep it until `num_timelines` newer ones have come; an id used twice counts once."""
        self._timelines[timeline.request_id] = timeline
        self._timelines.move_to_end(timeline.request_id)
        if len(self._timelines) > self._num_timelines:
            self._timelines.popitem(last=False)

    def get(self, request_id: str) -> Timeline:
        """The timeline of a request; of the last one that finished, for an empty id.

        Raises:
            InvalidArgument: There is none, or not any more.
        """
        key = request_id or next(reversed(self._timelines), "")
        if key not in self._timelines:
            raise InvalidArgument(
                f"there is no timeline of request {request_id!r}: the router keeps the last "
                f"{self._num_timelines} that finished",
                field="request_id",
            )
        return self._timelines[key]
