"""How a router does, in one value, and its messages of router.proto."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from redserve.v1 import router_pb2 as pb
from redserve.wire.replicas import replica_from_proto, replica_to_proto

if TYPE_CHECKING:
    from redserve.wire.replicas import ReplicaStatus


@dataclass(frozen=True, slots=True)
class WindowTally:
    """Events of one promise over the last `window_s` seconds; 0 is since the router started."""

    window_s: float
    good: int
    bad: int


@dataclass(frozen=True, slots=True)
class SloStatus:
    """One promise of the manifest, as far as one router knows.

    Attributes:
        indicator: What is measured, as in the manifest.
        threshold_s: An event at or below it is good, seconds; None for Availability.
        target: Promised share of good events, above 0 and below 1.
        window_s: Length of its own window, seconds.
        tallies: The last minute, five minutes, hour, and since the start.
        attainment: Share of good events over its own window; None before the first event.
        budget_left: Share of the allowed bad events that is left; below 0 when overdrawn, None
            before the first event.
    """

    name: str
    indicator: str
    threshold_s: float | None
    target: float
    window_s: float
    tallies: tuple[WindowTally, ...]
    attainment: float | None
    budget_left: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the last five minutes, seconds; all 0 when `count` is."""

    p50_s: float
    p95_s: float
    p99_s: float
    count: int


@dataclass(frozen=True, slots=True)
class Overview:
    """How a router does. Rates are those of the last minute.

    Attributes:
        model: Served name.
        uptime_s: Since the router started, seconds.
        slos: In the manifest's order.
        requests_per_s: Requests that ended, however they did.
        failures_per_s: Of these, those that the service failed.
        output_tokens_per_s: Tokens that left.
        time_to_first_token: Arrival to first token.
        time_per_output_token: Mean time between tokens of complete answers.
        request_duration: Arrival to end of complete answers.
        num_inflight: Requests being served.
        num_queued: Of these, those that no LLM replica has begun to compute.
        replicas: By pool, then address.
    """

    model: str
    uptime_s: float
    slos: tuple[SloStatus, ...]
    requests_per_s: float
    failures_per_s: float
    output_tokens_per_s: float
    time_to_first_token: Latency
    time_per_output_token: Latency
    request_duration: Latency
    num_inflight: int
    num_queued: int
    replicas: tuple[ReplicaStatus, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields under their own names."""
        return asdict(self)


def overview_to_proto(overview: Overview) -> pb.GetOverviewResponse:
    """The inverse of `overview_from_proto`."""
    return pb.GetOverviewResponse(
        model=overview.model,
        uptime_s=overview.uptime_s,
        slos=[_slo_to_proto(slo) for slo in overview.slos],
        requests_per_s=overview.requests_per_s,
        failures_per_s=overview.failures_per_s,
        output_tokens_per_s=overview.output_tokens_per_s,
        time_to_first_token=_latency_to_proto(overview.time_to_first_token),
        time_per_output_token=_latency_to_proto(overview.time_per_output_token),
        request_duration=_latency_to_proto(overview.request_duration),
        num_inflight=overview.num_inflight,
        num_queued=overview.num_queued,
        replicas=[replica_to_proto(replica) for replica in overview.replicas],
    )


def overview_from_proto(message: pb.GetOverviewResponse) -> Overview:
    """The inverse of `overview_to_proto`."""
    return Overview(
        model=message.model,
        uptime_s=message.uptime_s,
        slos=tuple(_slo_from_proto(slo) for slo in message.slos),
        requests_per_s=message.requests_per_s,
        failures_per_s=message.failures_per_s,
        output_tokens_per_s=message.output_tokens_per_s,
        time_to_first_token=_latency_from_proto(message.time_to_first_token),
        time_per_output_token=_latency_from_proto(message.time_per_output_token),
        request_duration=_latency_from_proto(message.request_duration),
        num_inflight=message.num_inflight,
        num_queued=message.num_queued,
        replicas=tuple(replica_from_proto(replica) for replica in message.replicas),
    )


def _slo_to_proto(slo: SloStatus) -> pb.SloStatus:
    return pb.SloStatus(
        name=slo.name,
        indicator=slo.indicator,
        threshold_s=slo.threshold_s,
        target=slo.target,
        window_s=slo.window_s,
        tallies=[pb.SloTally(window_s=t.window_s, good=t.good, bad=t.bad) for t in slo.tallies],
        attainment=slo.attainment,
        budget_left=slo.budget_left,
    )


def _slo_from_proto(slo: pb.SloStatus) -> SloStatus:
    return SloStatus(
        name=slo.name,
        indicator=slo.indicator,
        threshold_s=slo.threshold_s if slo.HasField("threshold_s") else None,
        target=slo.target,
        window_s=slo.window_s,
        tallies=tuple(WindowTally(t.window_s, t.good, t.bad) for t in slo.tallies),
        attainment=slo.attainment if slo.HasField("attainment") else None,
        budget_left=slo.budget_left if slo.HasField("budget_left") else None,
    )


def _latency_to_proto(latency: Latency) -> pb.Latency:
    return pb.Latency(
        p50_s=latency.p50_s, p95_s=latency.p95_s, p99_s=latency.p99_s, count=latency.count
    )


def _latency_from_proto(latency: pb.Latency) -> Latency:
    return Latency(latency.p50_s, latency.p95_s, latency.p99_s, latency.count)
