"""What the router sees, as tables: replicas, and the ways between them."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redserve.wire.replicas import ReplicaStatus
    from redserve.wire.router_client import PairStatus

MAX_ROWS: Final = 24
"""Pairs that are shown one by one; of more, the failed and the slowest ones come first."""


def replica_table(replicas: Sequence[ReplicaStatus], names: Mapping[str, str]) -> Table:
    """One row per replica; `names` has those of known addresses, in the order to show them."""
    table = _table("REPLICA", "STATE", "TRANSPORT")
    table.add_column("LOAD")
    place = _places(names)
    for replica in sorted(replicas, key=lambda replica: place(replica.address)):
        table.add_row(
            names.get(replica.address, f"{replica.pool} {replica.address}"),
            "serving" if replica.serving else "not serving",
            replica.transport or "-",
            "  ".join(f"{name}={value:g}" for name, value in sorted(replica.load.items())),
        )
    return table


def pair_table(pairs: Sequence[PairStatus], names: Mapping[str, str]) -> Table:
    """One row per pair in the order of `names`, or those that matter most."""
    table = _table("ENCODER", "LLM", "TRANSPORT", "GB/S")
    place = _places(names)
    shown = sorted(pairs, key=lambda pair: (place(pair.llm), place(pair.encoder)))
    if len(pairs) > MAX_ROWS:
        shown = sorted(shown, key=_urgency)[:MAX_ROWS]
    for pair in shown:
        table.add_row(
            names.get(pair.encoder, pair.encoder),
            names.get(pair.llm, pair.llm),
            pair.transport or "-",
            _speed(pair),
        )
    return table


def pair_lines(pairs: Sequence[PairStatus]) -> list[str]:
    """What the table leaves out, in short."""
    if len(pairs) <= MAX_ROWS:
        return []
    speeds = [pair.gb_per_s for pair in pairs if _is_measured(pair)]
    num_failed = sum(bool(pair.error) for pair in pairs)
    line = f"{len(pairs)} pairs: {len(speeds)} measured, {num_failed} failed"
    if speeds:
        line += f"; {min(speeds):.3g} to {max(speeds):.3g} GB/s, median {median(speeds):.3g}"
    return [line, f"shown are the {MAX_ROWS} that are worst; --json has all"]


def _places(names: Mapping[str, str]) -> Callable[[str], int]:
    """Where an address comes; all that have no name come last, as they are."""
    places = {address: place for place, address in enumerate(names)}
    return lambda address: places.get(address, len(places))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _speed(pair: PairStatus) -> str:
    if pair.error:
        return f"failed: {pair.error}"
    return f"{pair.gb_per_s:.3g}" if _is_measured(pair) else "not measured yet"


def _is_measured(pair: PairStatus) -> bool:
    return not pair.error and pair.gb_per_s > 0


def _urgency(pair: PairStatus) -> tuple[bool, bool, float]:
    """Failed ones first, then measured ones from the slowest on, then the rest."""
    return not pair.error, not _is_measured(pair), pair.gb_per_s
