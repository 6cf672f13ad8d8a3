"""What the operator's metrics say of pools."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve_operator.pool_figures import tell_pools


def service(name: str, *pools: dict[str, Any]) -> dict[str, Any]:
    status = {"status": {"pools": list(pools)}} if pools else {}
    return {"metadata": {"namespace": "prod", "name": name}, **status}


def test_pools_are_told_and_forgotten() -> None:
    registry = CollectorRegistry()
    gauge = OperatorMetrics(registry).pool_replicas

    def value(name: str, pool: str, state: str) -> float | None:
        place = {"service_namespace": "prod", "service": name, "service_pool": pool}
        labels = {**place, "state": state}
        return registry.get_sample_value("redserve_operator_pool_replicas", labels)

    encoder = {"name": "encoder", "desired": 3, "replicas": 3, "ready": 2, "updated": 1}
    tell_pools(gauge, [service("demo", encoder, {"name": "llm"}), service("young")])
    assert [value("demo", "encoder", state) for state in ("desired", "ready", "updated")] == [
        3, 2, 1,
    ]  # fmt: skip
    assert value("demo", "llm", "ready") == 0
    assert value("young", "encoder", "ready") is None
    tell_pools(gauge, [])
    assert value("demo", "encoder", "desired") is None
