"""What was measured, as JSON and as a page."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import machine

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.operator.audit_log import Target


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run showed.

    Attributes:
        seconds_until_ready: First apply to the last service ready.
        seconds_until_resynced: Start of a second operator until it had looked at every service.
        writes: Of the first operator, by target.
        writes_after_restart: Writes of children by the second one.
        rss_mb, peak_rss_mb: Memory of the first operator, MiB.
        rss_after_restart_mb: Memory of the second one, MiB.
        control_plane_mb: Memory of the control plane's programs, MiB.
    """

    seconds_until_ready: float
    seconds_until_resynced: float
    writes: Counter[Target]
    writes_after_restart: int
    rss_mb: float
    peak_rss_mb: float
    rss_after_restart_mb: float
    control_plane_mb: dict[str, float]


def of_children(writes: Counter[Target]) -> Counter[Target]:
    """Writes of what was made for services: not their own status, events and the Lease."""
    kept = writes.copy()
    for target in writes:
        if target.resource in ("redservices", "events", "leases"):
            del kept[target]
    return kept


def result_of(
    measured: Measured, *, num_services: int, num_nodes: int, commit: str
) -> dict[str, Any]:
    children = of_children(measured.writes)
    specs = {t: n for t, n in children.items() if not t.subresource}
    by_resource: dict[str, int] = {}
    for target, count in children.items():
        name = f"{target.resource}/{target.subresource}".rstrip("/")
        by_resource[name] = by_resource.get(name, 0) + count
    return {
        "seconds_until_ready": round(measured.seconds_until_ready, 1),
        "writes_per_child": round(children.total() / max(1, len(specs)), 2),
        "operator_rss_mb": round(measured.rss_mb),
        "commit": commit,
        "hardware": machine.hardware(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "services": num_services,
        "pods": 5 * num_services,
        "nodes": num_nodes,
        "children": len(specs),
        "most_writes_of_a_child": max(specs.values()),
        "writes": dict(sorted(by_resource.items())),
        "status_writes_of_services": sum(
            n for t, n in measured.writes.items() if t.resource == "redservices"
        ),
        "events": sum(n for t, n in measured.writes.items() if t.resource == "events"),
        "operator_peak_rss_mb": round(measured.peak_rss_mb),
        "seconds_until_resynced": round(measured.seconds_until_resynced, 1),
        "writes_after_restart": measured.writes_after_restart,
        "operator_rss_after_restart_mb": round(measured.rss_after_restart_mb),
        "control_plane_rss_mb": {k: round(v) for k, v in measured.control_plane_mb.items()},
    }


def page_of(result: dict[str, Any]) -> str:
    """The page for people."""
    rows = {
        "first `apply` to the last service ready": f"{result['seconds_until_ready']} s",
        "writes per child, RedPool status included": (
            f"{result['writes_per_child']} ({result['children']} children; most for one child, "
            f"status left out: {result['most_writes_of_a_child']})"
        ),
        "status writes of the services": result["status_writes_of_services"],
        "operator memory, resident": (
            f"{result['operator_rss_mb']} MiB (peak {result['operator_peak_rss_mb']})"
        ),
        "restart until every service was looked at": (
            f"{result['seconds_until_resynced']} s, {result['writes_after_restart']} writes of "
            "children"
        ),
    }
    lines = [
        "# The operator at scale",
        f"Written by `make bench-operator`. {result['services']} services with {result['pods']} "
        f"pods on {result['nodes']} fake GPU nodes of a real control plane (API server, etcd, "
        "controllers and scheduler on the same cores); a pod is ready 0.2 s after it was "
        "scheduled. Writes as counted by the API server's audit log, dry runs left out.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        f"Commit {result['commit']}, {result['hardware']}, {result['date']}.",
    ]
    return "\n".join([*lines, ""])
