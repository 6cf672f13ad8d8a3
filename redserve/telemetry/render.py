"""A timeline for people: bars in a terminal, and a file for a trace viewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.telemetry.transport_times import transport_times

if TYPE_CHECKING:
    from redserve.telemetry.timeline import Bar, Timeline
    from redserve.telemetry.transport_times import ItemTransport

_MARKS: Final = {
    "preprocess": "░",
    "queue": "·",
    "encode": "█",
    "room": ":",
    "transfer": "▒",
    "aborted": "x",
    "prefill": "▓",
    "decode": "=",
}
_OTHER_MARK: Final = "-"
_MIN_AXIS: Final = 20


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps times to columns."""

    start_ns: int
    span_ns: int
    width: int

    def columns(self, bar: Bar) -> range:
        """Columns that a bar fills: at least one, or a short bar would vanish."""
        first = (bar.start_ns - self.start_ns) * self.width // self.span_ns
        last = -((bar.end_ns - self.start_ns) * -self.width // self.span_ns)
        first = min(max(first, 0), self.width - 1)
        return range(first, min(max(last, first + 1), self.width))

    def ruler(self) -> str:
        """0 at the left, the end at the right, in milliseconds."""
        end = f"{self.span_ns / 1e6:.1f} ms"
        return "0".ljust(self.width - len(end)) + end


def render_text(timeline: Timeline, width: int = 100) -> str:
    """Draw one row per lane and kind of work on a common axis in milliseconds.

    Args:
        timeline: What to draw.
        width: Columns of the whole picture; small ones are widened until the axis fits.

    Returns:
        Lines without a trailing newline: title, ruler, rows, legend, summary, and what transport
        took item by item, if anything was transferred.
    """
    title = f"request {timeline.request_id}"
    if not timeline.bars:
        return "\n".join((title, "  (no bars)", _summary(timeline)))
    groups: dict[tuple[str, str], list[Bar]] = {}
    for bar in sorted(timeline.bars, key=lambda bar: (bar.start_ns, bar.end_ns)):
        groups.setdefault((bar.lane, bar.name), []).append(bar)
    lanes = {lane: None for lane, _ in groups}  # in order of appearance
    lane_width = max(len(lane) for lane, _ in groups)
    name_width = max(len(name) for _, name in groups)
    note_width = max(len(_note(bars)) for bars in groups.values())
    axis = _axis(timeline, width - lane_width - name_width - note_width - 6)
    margin = " " * (lane_width + name_width + 3)
    lines = [title, f"{margin} {axis.ruler()}"]
    for lane in lanes:
        label = lane
        for (other, name), bars in groups.items():
            if other != lane:
                continue
            row = f"{label:{lane_width}}  {name:{name_width}} |{_cells(bars, axis)}| {_note(bars)}"
            lines.append(row)
            label = ""  # a lane is named once
    used = {name for _, name in groups}
    legend = [f"{mark} {name}" for name, mark in _MARKS.items() if name in used]
    if used - _MARKS.keys():
        legend.append(f"{_OTHER_MARK} other")
    lines.extend(("legend: " + "  ".join(legend), _summary(timeline)))
    lines.extend(_transport_table(transport_times(timeline.bars)))
    return "\n".join(lines)


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """The timeline as Chrome trace events (chrome://tracing, ui.perfetto.dev).

    Lanes become processes and kinds of work their threads; times are microseconds from arrival.
    """
    start_ns = _start_ns(timeline)
    events: list[dict[str, Any]] = []
    pids: dict[str, int] = {}
    tids: dict[tuple[str, str], int] = {}
    for bar in sorted(timeline.bars, key=lambda bar: (bar.start_ns, bar.end_ns)):
        if bar.lane not in pids:
            pids[bar.lane] = len(pids) + 1
            events.append(_label("process_name", bar.lane, pids[bar.lane], 0))
        key = (bar.lane, bar.name)
        if key not in tids:
            tids[key] = len(tids) + 1
            events.append(_label("thread_name", bar.name, pids[bar.lane], tids[key]))
        args: dict[str, Any] = {"num_tokens": bar.num_tokens}
        if bar.item_index is not None:
            args["item_index"] = bar.item_index
        if bar.detail:
            args["detail"] = bar.detail
        events.append(
            {
                "ph": "X",
                "cat": "redserve",
                "name": bar.name if bar.item_index is None else f"{bar.name} {bar.item_index}",
                "ts": (bar.start_ns - start_ns) / 1e3,
                "dur": (bar.end_ns - bar.start_ns) / 1e3,
                "pid": pids[bar.lane],
                "tid": tids[key],
                "args": args,
            }
        )
    if timeline.first_token_ns:
        ts = (timeline.first_token_ns - start_ns) / 1e3
        events.append({"ph": "i", "s": "g", "name": "first token", "ts": ts, "pid": 0, "tid": 0})
    other = {
        "request_id": timeline.request_id,
        "overlap_ratio": timeline.overlap_ratio,
        "transport": [
            {
                "item_index": item.item_index,
                "exposed_ms": item.exposed_ns / 1e6,
                "hidden_ms": item.hidden_ns / 1e6,
            }
            for item in transport_times(timeline.bars)
        ],
    }
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def _label(kind: str, name: str, pid: int, tid: int) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _start_ns(timeline: Timeline) -> int:
    starts = [bar.start_ns for bar in timeline.bars]
    if timeline.received_ns:
        starts.append(timeline.received_ns)
    return min(starts, default=0)


def _axis(timeline: Timeline, width: int) -> _Axis:
    start_ns = _start_ns(timeline)
    end_ns = max([timeline.finished_ns, *(bar.end_ns for bar in timeline.bars)])
    return _Axis(start_ns, max(end_ns - start_ns, 1), max(width, _MIN_AXIS))


def _cells(bars: list[Bar], axis: _Axis) -> str:
    cells = [" "] * axis.width
    for bar in bars:
        mark = _MARKS.get(bar.name, _OTHER_MARK)
        for column in axis.columns(bar):
            cells[column] = mark
    return "".join(cells)


def _note(bars: list[Bar]) -> str:
    """What a row adds up to: busy milliseconds, how many bars, tokens."""
    busy_ms = sum(bar.end_ns - bar.start_ns for bar in bars) / 1e6
    note = f"{busy_ms:.1f} ms"
    if len(bars) > 1:
        note += f" in {len(bars)}"
    num_tokens = sum(bar.num_tokens for bar in bars)
    return f"{note}, {num_tokens} tok" if num_tokens else note


def _summary(timeline: Timeline) -> str:
    parts = []
    if timeline.first_token_ns:
        parts.append(f"TTFT {(timeline.first_token_ns - timeline.received_ns) / 1e6:.1f} ms")
    if timeline.finished_ns:
        parts.append(f"total {(timeline.finished_ns - timeline.received_ns) / 1e6:.1f} ms")
    if timeline.overlap_ratio is not None:
        parts.append(f"overlap {timeline.overlap_ratio:.0%} of encode time hidden behind prefill")
    return ", ".join(parts) or "not finished"


def _transport_table(items: tuple[ItemTransport, ...]) -> list[str]:
    """Milliseconds of each item and of all; nothing when nothing was transferred."""
    if not items:
        return []
    exposed_ns = sum(item.exposed_ns for item in items)
    hidden_ns = sum(item.hidden_ns for item in items)
    lines = ["transport      exposed       hidden"]
    for item in items:
        line = _transport_row(f"item {item.item_index}", item.exposed_ns, item.hidden_ns)
        again = "" if item.num_attempts == 1 else f"  in {item.num_attempts} attempts"
        lines.append(line + again)
    return [*lines, _transport_row("all", exposed_ns, hidden_ns)]


def _transport_row(label: str, exposed_ns: int, hidden_ns: int) -> str:
    return f"{label:9} {exposed_ns / 1e6:9.2f} ms {hidden_ns / 1e6:9.2f} ms"
