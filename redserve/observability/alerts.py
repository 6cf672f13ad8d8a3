"""Alerts, and where their runbooks are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

RUNBOOKS: Final = "https://redserve.dev/docs/runbooks"
"""Where docs/runbooks is to be published; until then everybody names a place of his own."""

Severity = Literal["page", "ticket"]
"""`page`: users are hurt, somebody should look now. `ticket`: it can wait for working hours."""

SLO_PAGE: Final = "RedServeSLOBurnRatePage"
SLO_TICKET: Final = "RedServeSLOBurnRateTicket"
POOL_EMPTY: Final = "RedServePoolEmpty"
POOL_BELOW_MINIMUM: Final = "RedServePoolBelowMinimum"
ROUTER_WITHOUT_REPLICA: Final = "RedServeRouterWithoutReplica"
DISCOVERY_STALE: Final = "RedServeDiscoveryStale"
TARGET_DOWN: Final = "RedServeTargetDown"
TRANSPORT_FELL_BACK: Final = "RedServeTransportFellBack"
MEMORY_QUARANTINED: Final = "RedServeMemoryQuarantined"
KV_CACHE_FULL: Final = "RedServeKVCacheFull"
QUEUE_OLD: Final = "RedServeQueueOld"
ENCODE_QUEUE_OLD: Final = "RedServeEncodeQueueOld"
ENCODER_CACHE_THRASH: Final = "RedServeEncoderCacheThrash"

ALERTS: Final = (
    SLO_PAGE,
    SLO_TICKET,
    POOL_EMPTY,
    POOL_BELOW_MINIMUM,
    ROUTER_WITHOUT_REPLICA,
    DISCOVERY_STALE,
    TARGET_DOWN,
    TRANSPORT_FELL_BACK,
    MEMORY_QUARANTINED,
    KV_CACHE_FULL,
    QUEUE_OLD,
    ENCODE_QUEUE_OLD,
    ENCODER_CACHE_THRASH,
)
"""Names of all alerts; each has a page of its own."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule.

    Attributes:
        name: One of `ALERTS`.
        severity: How urgent it is.
        expr: PromQL; the alert is on for each series that it gives.
        for_: How long that must last, as Prometheus writes it; empty for no time at all.
        summary: What is the matter, in one line.
        description: What it means and what to look at first.
        labels: Added to those of the series.
    """

    name: str
    severity: Severity
    expr: str
    for_: str
    summary: str
    description: str
    labels: tuple[tuple[str, str], ...] = ()

    def to_rule(self, runbooks: str = RUNBOOKS) -> dict[str, Any]:
        """As a rule file has it; `runbooks` is the address of the folder of runbooks."""
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expr}
        if self.for_:
            rule["for"] = self.for_
        return rule | {
            "labels": {"severity": self.severity, **dict(self.labels)},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": runbook_url(self.name, runbooks),
            },
        }


def runbook_url(alert: str, runbooks: str = RUNBOOKS) -> str:
    """Where somebody who was woken by an alert reads what to do."""
    return f"{runbooks.rstrip('/')}/{alert}.md"
