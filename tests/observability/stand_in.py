"""What one machine without a cluster lacks: an operator, and NVIDIA's DCGM exporter.

The operator's metrics are the real class, moved on at every scrape. DCGM's are by its own names,
with the labels that it gives, once as it is scraped by default and once with `honor_labels`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from redserve.telemetry.metrics.discovery import DiscoveryMetrics
from redserve.telemetry.metrics.endpoint import serve_metrics
from redserve.telemetry.metrics.operator import OperatorMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client import Metric

DCGM: Final = {
    "DCGM_FI_DEV_GPU_UTIL": 37.0,
    "DCGM_FI_DEV_FB_USED": 61_000.0,
    "DCGM_FI_DEV_FB_FREE": 20_000.0,
    "DCGM_FI_DEV_POWER_USAGE": 412.0,
    "DCGM_FI_DEV_XID_ERRORS": 0.0,
    "DCGM_FI_PROF_SM_ACTIVE": 0.31,
    "DCGM_FI_PROF_PCIE_RX_BYTES": 2e9,
}


class _Devices(Collector):
    """One GPU for each pod."""

    def __init__(self, namespace: str, pods: Sequence[str]) -> None:
        self._namespace = namespace
        self._pods = pods

    def collect(self) -> Iterable[Metric]:
        for name, value in DCGM.items():
            family = GaugeMetricFamily(
                name, name, labels=("gpu", "UUID", "Hostname", "namespace", "pod", "container")
            )
            for number, pod in enumerate(self._pods):
                labels = (str(number), f"GPU-{number}", "node-0", self._namespace, pod, "main")
                family.add_metric(labels, value)
            yield family


class _BusyOperator(Collector):
    """Does a bit of everything before it is looked at."""

    def __init__(self, registry: CollectorRegistry, namespace: str, service: str) -> None:
        self._metrics = OperatorMetrics(registry)
        self._pool = (namespace, service)

    def collect(self) -> Iterable[Metric]:
        done = self._metrics
        done.reconcile.labels("unchanged").inc()
        done.reconcile_duration.observe(0.02)
        done.queue_depth.set(1)
        done.queue_oldest.set(0.1)
        done.api_request.labels("patch", "200").observe(0.004)
        done.applies.labels("Deployment", "changed").inc()
        done.watch_lag.labels("Pod").set(0)
        done.leader.set(1)
        for pool, size in (("encoder", 2), ("llm", 1), ("router", 1)):
            for state in ("desired", "ready", "updated"):
                done.pool_replicas.labels(*self._pool, pool, state).set(size)
        return ()


@contextmanager
def stand_ins(namespace: str, service: str, pods: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Scrape configurations of both, while they serve."""
    rest = CollectorRegistry()
    rest.register(_BusyOperator(rest, namespace, service))
    DiscoveryMetrics(rest).synced.set(1)
    devices = CollectorRegistry()
    devices.register(_Devices(namespace, pods))
    port, stop = serve_metrics(rest, "127.0.0.1", 0)
    device_port, stop_devices = serve_metrics(devices, "127.0.0.1", 0)
    of_router = {
        "namespace": namespace, "redservice": service, "pool": "router", "revision": "local",
    }  # fmt: skip
    own = {"namespace": "gpu-operator", "pod": "dcgm-exporter-x"}
    try:
        yield [
            {
                **_job("operator", port, {"namespace": "redserve-system", "pod": "operator-x"}),
                "metric_relabel_configs": [
                    {
                        "source_labels": ["__name__"],
                        "regex": "redserve_discovery_.*",
                        "target_label": label,
                        "replacement": value,
                    }
                    for label, value in of_router.items()
                ],
            },
            _job("dcgm", device_port, own),
            {**_job("dcgm-honored", device_port, own), "honor_labels": True},
        ]
    finally:
        stop()
        stop_devices()


def _job(name: str, port: int, labels: dict[str, str]) -> dict[str, Any]:
    target = {"targets": [f"127.0.0.1:{port}"], "labels": labels}
    return {"job_name": name, "static_configs": [target]}
