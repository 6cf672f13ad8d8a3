"""Charts of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.bench.report.axes import PERCENT, TOP, Axis, Frame
from redserve.bench.report.svg import tag, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.bench.outcome import Outcome
    from redserve.bench.summary import Latencies

MAX_POINTS: Final = 400
"""Of a line: more cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A promise that a chart shows as a line."""

    name: str
    threshold_s: float


def distribution(what: str, values: Sequence[float], limits: Sequence[Limit]) -> str:
    """How many requests took no longer than a time; `values` is not empty."""
    ranked = sorted(values)
    top_s = max([ranked[-1], *(limit.threshold_s for limit in limits)])
    frame = Frame(Axis.of_seconds(what, top_s), PERCENT)
    places = [f"{frame.px(0):.1f},{frame.py(0):.1f}"]
    before = 0.0
    for rank in _thinned(len(ranked)):
        x = frame.px(ranked[rank])
        places.append(f"{x:.1f},{frame.py(before):.1f}")
        before = (rank + 1) / len(ranked)
        places.append(f"{x:.1f},{frame.py(before):.1f}")
    places.append(f"{frame.px(frame.x.top):.1f},{frame.py(1):.1f}")
    line = tag("polyline", class_="line", points=" ".join(places))
    return frame.svg(
        f"Distribution of {what} over {len(ranked)} requests",
        line,
        *(_limit_upright(frame, limit) for limit in limits),
    )


def over_time(outcomes: Sequence[Outcome], limits: Sequence[Limit]) -> str:
    """Time to first token of each request by when it was sent; failures stand on the ground."""
    begin_s = min(one.answer.start_s for one in outcomes)
    sent = [(one, one.answer.start_s - begin_s) for one in outcomes]
    slowest_s = max((one.ttft_s or 0.0 for one in outcomes), default=0.0)
    top_s = max([slowest_s, *(limit.threshold_s for limit in limits)])
    frame = Frame(
        Axis.of_seconds("sent after", max(time_s for _, time_s in sent)),
        Axis.of_seconds("time to first token", top_s),
    )
    marks = [_limit_flat(frame, limit) for limit in limits]
    for one, time_s in sent:
        x = frame.px(time_s)
        if one.ttft_s is not None:
            marks.append(tag("circle", class_="dot", cx=x, cy=frame.py(one.ttft_s), r=2.5))
        if one.answer.problem is not None:
            title = tag("title", text(f"request {one.index}: {one.answer.problem.reason}"))
            y = frame.py(0)
            cross = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
            marks.append(tag("path", title, class_="bad", d=cross))
    return frame.svg("Time to first token by the time of sending", *marks)


def in_flight(outcomes: Sequence[Outcome]) -> str:
    """Requests under way at each moment."""
    begin_s = min(one.answer.start_s for one in outcomes)
    changes = [(one.answer.start_s - begin_s, 1) for one in outcomes]
    changes += [(one.answer.end_s - begin_s, -1) for one in outcomes]
    # Ends come first: who leaves and who comes at the same moment were not there together.
    steps, count = [], 0
    for time_s, change in sorted(changes):
        count += change
        steps.append((time_s, count))
    most = max(count for _, count in steps)
    frame = Frame(
        Axis.of_seconds("time", max(time_s for time_s, _ in steps)),
        Axis.of_counts("requests under way", most),
    )
    path = [f"M{frame.px(0):.1f} {frame.py(0):.1f}"]
    for time_s, count in steps:
        path.append(f"H{frame.px(time_s):.1f}V{frame.py(count):.1f}")
    name = f"Requests under way over time, {most} at most"
    return frame.svg(name, tag("path", class_="area", d="".join(path) + "Z"))


def by_images(groups: Sequence[tuple[int, Latencies]]) -> str:
    """Time to first token by number of pictures: median, and up to the 95th percentile."""
    found = [(count, of.ttft) for count, of in groups if of.ttft is not None]
    frame = Frame(
        Axis("images of a request", tuple(float(n) for n in range(max(c for c, _ in found) + 2))),
        Axis.of_seconds("time to first token", max(ttft.p95 for _, ttft in found)),
    )
    marks = []
    for count, ttft in found:
        x = frame.px(count)
        low, high = frame.py(ttft.p50), frame.py(ttft.p95)
        marks.append(tag("line", class_="span", x1=x, y1=low, x2=x, y2=high))
        title = tag("title", text(f"{count} images, {ttft.count} requests"))
        marks.append(tag("circle", title, class_="dot", cx=x, cy=low, r=4.0))
    return frame.svg("Time to first token by number of images", *marks)


def _limit_upright(frame: Frame, limit: Limit) -> str:
    x = frame.px(limit.threshold_s)
    line = tag("line", class_="limit", x1=x, y1=TOP, x2=x, y2=frame.py(0))
    return line + tag("text", text(limit.name), class_="limit y", x=x - 5, y=frame.py(0) - 6)


def _limit_flat(frame: Frame, limit: Limit) -> str:
    y, right = frame.py(limit.threshold_s), frame.px(frame.x.top)
    line = tag("line", class_="limit", x1=frame.px(0), y1=y, x2=right, y2=y)
    return line + tag("text", text(limit.name), class_="limit y", x=right - 4, y=y + 14)


def _thinned(count: int) -> list[int]:
    """Ranks of at most `MAX_POINTS` of so many values, the first and the last among them."""
    if count <= MAX_POINTS:
        return list(range(count))
    return [place * (count - 1) // (MAX_POINTS - 1) for place in range(MAX_POINTS)]
