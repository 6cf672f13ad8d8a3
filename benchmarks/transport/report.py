"""What was measured, as JSON and as a page. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.transport import plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SHM_TARGET: Final = 0.6
"""Of memcpy, at 8 MiB."""
TCP_TARGET: Final = 0.8
"""Of a raw socket, from 1 MiB on."""
_NAMES: Final = {
    plan.MEMCPY: "shared memory, memcpy in one thread (a limit)",
    plan.SOCKET: "raw socket, blocking (a limit)",
    plan.IN_PROCESS: "in-process",
    plan.GRPC: "gRPC",
    plan.NIXL_SHM: "NIXL, shared memory",
    plan.NIXL_TCP: "NIXL, TCP",
}


@dataclass(slots=True)
class Cell:
    """Samples of one backend at one size.

    Attributes:
        latency_s: One read at a time, seconds each.
        bytes_per_s: Several at once, one figure per round.
        whole_latency_s, whole_bytes_per_s: The same for whole pulls; empty for the limits.
    """

    latency_s: list[float] = field(default_factory=list)
    bytes_per_s: list[float] = field(default_factory=list)
    whole_latency_s: list[float] = field(default_factory=list)
    whole_bytes_per_s: list[float] = field(default_factory=list)

    def add(self, measured: Mapping[str, Any]) -> None:
        """Take in one round, as a consumer process reports it."""
        self.latency_s += measured["latency_s"]
        self.bytes_per_s.append(measured["bytes_per_s"])
        self.whole_latency_s += measured.get("whole_latency_s", [])
        if "whole_bytes_per_s" in measured:
            self.whole_bytes_per_s.append(measured["whole_bytes_per_s"])


class Samples:
    """All cells; rounds are kept in order, so that backends can be compared within a round."""

    def __init__(self) -> None:
        self.cells: defaultdict[tuple[str, int], Cell] = defaultdict(Cell)

    def add(self, backend: str, num_bytes: int, measured: Mapping[str, Any]) -> None:
        """Take in one round of one backend."""
        self.cells[backend, num_bytes].add(measured)

    def ratio(self, backend: str, limit: str, num_bytes: int) -> float:
        """Median over the rounds of backend's rate / limit's rate in the same round."""
        ours = self.cells[backend, num_bytes].bytes_per_s
        theirs = self.cells[limit, num_bytes].bytes_per_s
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))

    def results(self) -> list[dict[str, Any]]:
        """Medians, one entry per backend and size."""
        return [_entry(backend, size, cell) for (backend, size), cell in self.cells.items()]


def targets(samples: Samples, sizes: Iterable[int]) -> dict[str, Any]:
    """The ratios that were promised, and all others of their kind."""
    sizes = tuple(sizes)
    over_memcpy = {n: samples.ratio(plan.NIXL_SHM, plan.MEMCPY, n) for n in sizes}
    over_socket = {n: samples.ratio(plan.NIXL_TCP, plan.SOCKET, n) for n in sizes}
    large = [n for n in sizes if n >= plan.MIB]
    return {
        "nixl_shm_over_memcpy": {str(n): round(r, 3) for n, r in over_memcpy.items()},
        "nixl_tcp_over_socket": {str(n): round(r, 3) for n, r in over_socket.items()},
        "nixl_shm_met": over_memcpy.get(8 * plan.MIB, 0.0) >= SHM_TARGET,
        "nixl_tcp_met": bool(large) and min(over_socket[n] for n in large) >= TCP_TARGET,
    }


def page_of(figures: Mapping[str, Any]) -> str:
    """The page for people."""
    entries = {(e["backend"], e["size_bytes"]): e for e in figures["results"]}
    sizes = sorted({size for _, size in entries})
    backends = [name for name in plan.BACKENDS if (name, sizes[0]) in entries]
    rates = [size for size in sizes if size > plan.SMALL]
    ours = [name for name in backends if name not in plan.RAW]
    return "\n".join(
        [
            "# The transport",
            "Written by `make bench-transport`. Medians of rounds in which every backend had its",
            f"turn. Rates: {plan.IN_FLIGHT} reads under way, 4 of 32 MiB (the raw socket is",
            "one stream, memcpy one thread), going round in memory larger than the caches.",
            "",
            "GB/s, the data path alone:",
            "",
            *_table(entries, backends, rates, "gb_per_s", "{:.2f}"),
            "",
            "Microseconds of one read at a time, the data path alone:",
            "",
            *_table(entries, backends, sizes, "latency_us", "{:.0f}"),
            "",
            "GB/s of whole pulls (lease, move, checksum, release):",
            "",
            *_table(entries, ours, rates, "whole_pull_gb_per_s", "{:.2f}"),
            "",
            "Microseconds of one whole pull at a time:",
            "",
            *_table(entries, ours, sizes, "whole_pull_latency_us", "{:.0f}"),
            "",
            *_promises(figures),
            "",
            f"{figures['rounds']} rounds per size; {figures['busy_rounds']} of all began on a busy"
            " machine.",
            f"Commit {figures['commit']}, {figures['hardware']}, {figures['date']}.",
            "",
        ]
    )


def size_name(num_bytes: int) -> str:
    """As people write it."""
    for unit, name in ((plan.MIB, "MiB"), (plan.KIB, "KiB")):
        if num_bytes >= unit and num_bytes % unit == 0:
            return f"{num_bytes // unit} {name}"
    return f"{num_bytes} B"


def _promises(figures: Mapping[str, Any]) -> list[str]:
    found = figures["targets"]
    shm = found["nixl_shm_over_memcpy"].get(str(8 * plan.MIB), 0.0)
    tcp = {int(n): ratio for n, ratio in found["nixl_tcp_over_socket"].items()}
    large = ", ".join(f"{r:.0%} at {size_name(n)}" for n, r in tcp.items() if n >= plan.MIB)
    idle = ", ".join(f"{name} {share:.1%}" for name, share in figures["idle_cpu_share"].items())
    return [
        f"NIXL over shared memory reaches **{shm:.0%}** of memcpy at 8 MiB"
        f" (wanted: {SHM_TARGET:.0%}), NIXL over TCP {large} of the raw socket"
        f" (wanted: {TCP_TARGET:.0%}); medians of the ratios within each round.",
        f"A consumer that waits uses of a core: {idle}.",
    ]


def _entry(backend: str, num_bytes: int, cell: Cell) -> dict[str, Any]:
    made: dict[str, Any] = {
        "backend": backend,
        "size_bytes": num_bytes,
        "gb_per_s": _gb(statistics.median(cell.bytes_per_s)),
        "latency_us": _us(cell.latency_s),
        "best_gb_per_s": _gb(max(cell.bytes_per_s)),
        "best_latency_us": round(min(cell.latency_s) * 1e6, 2),
    }
    if cell.whole_bytes_per_s:
        made["whole_pull_gb_per_s"] = _gb(statistics.median(cell.whole_bytes_per_s))
        made["whole_pull_latency_us"] = _us(cell.whole_latency_s)
    return made


def _gb(bytes_per_s: float) -> float:
    return round(bytes_per_s / 1e9, 4)


def _us(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e6, 2)


def _table(
    entries: Mapping[tuple[str, int], Mapping[str, Any]],
    backends: Sequence[str],
    sizes: Sequence[int],
    key: str,
    form: str,
) -> list[str]:
    lines = [
        f"| backend | {' | '.join(size_name(size) for size in sizes)} |",
        f"|---|{'---|' * len(sizes)}",
    ]
    for backend in backends:
        cells = [form.format(entries[backend, size][key]) for size in sizes]
        lines.append(f"| {_NAMES[backend]} | {' | '.join(cells)} |")
    return lines
