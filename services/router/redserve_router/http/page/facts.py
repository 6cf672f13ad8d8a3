"""What the page shows of the service: no addresses, nothing of other people's requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redserve.wire.overview import Latency, Overview, SloStatus
    from redserve_router.media.policy import MediaPolicy


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """One pool: replicas that take work, of those that the router knows."""

    name: str
    num_serving: int
    num_known: int


@dataclass(frozen=True, slots=True)
class PageFacts:
    """The service as it is now. Rates are those of the last minute.

    Attributes:
        model: Served name.
        why_not_ready: A sentence, or None when requests can be answered.
        max_images: Most pictures of one request.
        max_image_bytes: Most bytes of one picture.
        max_request_bytes: Most bytes of all pictures of one request.
        uptime_s: Since the router started, seconds.
        slos: In the manifest's order.
        requests_per_s: Requests that ended, however they did.
        failures_per_s: Of these, those that the service failed.
        output_tokens_per_s: Tokens that left.
        latencies: By name, of the last five minutes.
        num_inflight: Requests being served.
        num_queued: Of these, those that no LLM replica has begun to compute.
        pools: Encoders and LLM engines.
    """

    model: str
    why_not_ready: str | None
    max_images: int
    max_image_bytes: int
    max_request_bytes: int
    uptime_s: float
    slos: tuple[SloStatus, ...]
    requests_per_s: float
    failures_per_s: float
    output_tokens_per_s: float
    latencies: dict[str, Latency]
    num_inflight: int
    num_queued: int
    pools: tuple[PoolFacts, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields under their own names."""
        return asdict(self)


def page_facts(overview: Overview, *, why_not_ready: str | None, policy: MediaPolicy) -> PageFacts:
    """The part of an overview that everybody may see who may ask."""
    known = Counter(replica.pool for replica in overview.replicas)
    serving = Counter(replica.pool for replica in overview.replicas if replica.serving)
    return PageFacts(
        model=overview.model,
        why_not_ready=why_not_ready,
        max_images=policy.max_images,
        max_image_bytes=policy.max_image_bytes,
        max_request_bytes=policy.max_request_bytes,
        uptime_s=overview.uptime_s,
        slos=overview.slos,
        requests_per_s=overview.requests_per_s,
        failures_per_s=overview.failures_per_s,
        output_tokens_per_s=overview.output_tokens_per_s,
        latencies={
            "time_to_first_token": overview.time_to_first_token,
            "time_per_output_token": overview.time_per_output_token,
            "request_duration": overview.request_duration,
        },
        num_inflight=overview.num_inflight,
        num_queued=overview.num_queued,
        pools=tuple(PoolFacts(pool, serving[pool], known[pool]) for pool in sorted(known)),
    )
