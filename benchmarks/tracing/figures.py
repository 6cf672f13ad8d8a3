"""From samples to what is said of them. Pure."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OFF: Final = "off"
AGAIN: Final = "again"
LEFT_OUT: Final = "left out"
RECORDED: Final = "recorded"
NUM_RESAMPLES: Final = 2000

Rounds = dict[str, list[list[float]]]
"""By mode, per round, the times to first token in seconds."""


def ratios(rounds: Mapping[str, Sequence[Sequence[float]]], mode: str) -> list[float]:
    """Per round the median of a mode over that of what it is compared with.

    The noise is one service without tracing over the other, recorded requests are compared with
    those left out by the same service, and all else with both services without tracing.
    """
    if mode == AGAIN:
        bases = list(rounds[OFF])
    elif mode == RECORDED:
        bases = list(rounds[LEFT_OUT])
    else:
        bases = [[*one, *other] for one, other in zip(rounds[OFF], rounds[AGAIN], strict=True)]
    pairs = zip(rounds[mode], bases, strict=True)
    return [statistics.median(own) / statistics.median(base) for own, base in pairs]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median, by resampling; the same for the same values."""
    chance = random.Random(len(values))
    medians = sorted(
        statistics.median(chance.choices(values, k=len(values))) for _ in range(NUM_RESAMPLES)
    )
    return medians[round(0.025 * NUM_RESAMPLES)], medians[round(0.975 * NUM_RESAMPLES) - 1]


def summarize(rounds: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Per mode: medians and mean of all requests, and the cost within rounds."""
    made: dict[str, Any] = {}
    for mode, own in rounds.items():
        samples = sorted(value for one in own for value in one)
        relative = ratios(rounds, mode)
        low, high = interval(relative)
        made[mode] = {
            "requests": len(samples),
            "ttft_median_ms": round(statistics.median(samples) * 1e3, 3),
            "ttft_p95_ms": round(samples[int(0.95 * len(samples))] * 1e3, 3),
            "cost_percent": round((statistics.median(relative) - 1) * 100, 2),
            "cost_percent_low": round((low - 1) * 100, 2),
            "cost_percent_high": round((high - 1) * 100, 2),
        }
    return made


def page_of(figures: Mapping[str, Any], titles: Mapping[str, str], limit_percent: float) -> str:
    """The results for people."""
    lines = [
        "# What tracing costs",
        "Written by `make bench-tracing`. Time to first token, at the client. Services that run "
        "beside each other are asked in turn, request by request; the cost is the median, over "
        "rounds, of a round's median relative to that of both services without tracing, with its "
        "95 % interval. One of these two relative to the other shows what chance amounts to: two "
        "services are never equally fast. Within one service chance is less: there, requests that "
        "their client wants recorded are compared with those that it leaves out, and only so: that "
        "service gets twice the requests of the others.",
    ]
    for clients, result in figures["clients"].items():
        lines += [
            "",
            f"## {clients} request{'s' if int(clients) > 1 else ''} at a time",
            "",
            "| tracing | requests | TTFT median ms | TTFT p95 ms | cost % | 95 % interval |",
            "|---|---|---|---|---|---|",
        ]
        for mode, of_mode in result.items():
            cost, ends = "", ""
            if mode not in (OFF, LEFT_OUT):
                cost = f"{of_mode['cost_percent']:+.2f}"
                ends = f"{of_mode['cost_percent_low']:+.2f} to {of_mode['cost_percent_high']:+.2f}"
            lines.append(
                f"| {titles[mode]} | {of_mode['requests']} | {of_mode['ttft_median_ms']:.2f} "
                f"| {of_mode['ttft_p95_ms']:.2f} | {cost} | {ends} |"
            )
    costs = [result["5"]["cost_percent"] for result in figures["clients"].values()]
    recorded = [result[RECORDED]["cost_percent"] for result in figures["clients"].values()]
    lines += [
        "",
        f"At 5 % tracing costs {' and '.join(f'**{cost:+.2f} %**' for cost in costs)} "
        f"(wanted: under {limit_percent:g} %). "
        f"{figures['otlp_bytes']} bytes of spans were exported.",
        "",
        "A recorded request is slower than one that the same service leaves out by "
        f"{' and '.join(f'{one:+.2f} %' for one in recorded)}; of one in twenty that is "
        f"{' and '.join(f'**{one / 20:+.2f} %**' for one in recorded)} on average.",
        "",
        "CPU time of the spans of one request with two images, in all processes together and with "
        f"their export: {figures['cpu_us']['recorded']:.0f} µs if it is recorded, "
        f"{figures['cpu_us']['not_recorded']:.0f} µs if not, "
        f"{figures['cpu_us']['off']:.0f} µs without a receiver.",
        "",
        f"Demo model, {figures['images']} new images per request, {figures['max_tokens']} output "
        f"tokens; {figures['rounds']} rounds of {figures['per_round']} requests per service; "
        f"{figures['busy_rounds']} rounds began on a busy machine.",
        f"Commit {figures['commit']}, {figures['hardware']}, {figures['date']}.",
        "",
    ]
    return "\n".join(lines)
