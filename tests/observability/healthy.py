"""The series of a service that is well, as Prometheus has them in a cluster."""

from __future__ import annotations

from typing import Any, Final

from tests.observability.promtool import NAMESPACE
from tests.spec.manifests import service as make_service

LENGTH: Final = 60
"""Values of each series."""
SPEC: Final[dict[str, Any]] = {
    "encoder": {"replicas": 2},
    "llm": {"replicas": 1},
    "slos": [
        {"name": "ttft", "indicator": "TimeToFirstToken", "thresholdMilliseconds": 800},
        {"name": "available", "indicator": "Availability", "objectivePercent": "99.9"},
        {
            "name": "loose",
            "indicator": "RequestLatency",
            "thresholdMilliseconds": 9000,
            "objectivePercent": "90",
            "windowDays": 1,
        },
        {"name": "short", "indicator": "Availability", "windowMinutes": 30},
    ],
}
POOLS: Final = {
    "router-0": "router",
    "encoder-0": "encoder",
    "encoder-1": "encoder",
    "llm-0": "llm",
}


def service(**spec: Any) -> Any:
    """Two encoders, an engine, three promises; some structs replaced."""
    return make_service(**{**SPEC, **spec})


def of(metric: str, process: str = "router-0", revision: str = "r1", **labels: str) -> str:
    """One series of one process."""
    pairs = {
        "namespace": NAMESPACE,
        "redservice": "demo",
        "pool": POOLS.get(process, process.rpartition("-")[0]),
        "revision": revision,
        "instance": process,
        **labels,
    }
    return metric + "{" + ", ".join(f'{name}="{value}"' for name, value in pairs.items()) + "}"


def serving(pool: str, number: int, router: str = "router-0", revision: str = "r1") -> str:
    """What a router says of a replica."""
    return of(
        "redserve_replica_serving",
        router,
        revision,
        replica_pool=pool,
        address=f"{pool}-{number}:50051",
    )


def slo(name: str, outcome: str, **labels: str) -> str:
    """A counter of events."""
    return of("redserve_slo_events_total", slo=name, outcome=outcome, **labels)


def steady(value: float, length: int = LENGTH) -> str:
    """The same value for as long as it takes."""
    return f"{value:g}x{length}"


def healthy(length: int = LENGTH) -> dict[str, str]:
    """Everything that rules look at, without requests."""
    made = {of("up", process): steady(1, length) for process in POOLS}
    router = {"redserve_inflight_requests": 3.0, "redserve_queue_oldest_seconds": 0.2}
    made |= {of(metric): steady(value, length) for metric, value in router.items()}
    made[of("redserve_discovery_synced")] = steady(1, length)
    made |= {serving("encoder", n): steady(1, length) for n in range(2)}
    made[serving("llm", 0)] = steady(1, length)
    made[of("redserve_kv_starved_steps_total", "llm-0")] = f"0+100x{length}"
    made[of("redserve_step_seconds_count", "llm-0")] = f"0+1000x{length}"
    made |= {
        of("redserve_encode_queue_oldest_seconds", encoder): steady(0.2, length)
        for encoder, pool in POOLS.items()
        if pool == "encoder"
    }
    for process, pool in POOLS.items():
        if pool == "encoder":
            for event in ("hits", "misses", "evictions", "returns"):
                made[of(f"redserve_encoder_cache_{event}_total", process)] = steady(0, length)
        if pool != "router":
            made[of("redserve_transport_fallbacks_total", process)] = steady(0, length)
            made[of("redserve_transport_info", process, transport="grpc")] = steady(1, length)
            for state, size in (("used", 400), ("free", 600), ("quarantined", 0)):
                name = of("redserve_transport_pool_bytes", process, state=state)
                made[name] = steady(size, length)
    return made
