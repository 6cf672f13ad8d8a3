"""Brings up services on fake GPU nodes; measures time until all are ready, writes and memory.

The control plane is real, nodes and pods are not: a pod is ready 0.2 s after it was scheduled.
Writes are counted in the API server's audit log, so that the operator does not count itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.operator.audit_log import USER, count_writes, write_policy
from benchmarks.operator.operator_process import operator_process, resident_mb
from benchmarks.operator.report import Measured, of_children, page_of, result_of
from tools.kubernetes.async_api import APPLY_PATCH, Api, ApiError, open_api
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.fake_nodes import Behaviour, running

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
CRDS = sorted((ROOT / "helm/redserve/files/crds").glob("*.yaml"))
NAMESPACE = "bench"
LIMIT_S = 900.0
"""An operator that has not brought everything up by then never will."""
QUIET_S = 5.0
"""So long nothing may be written before the end is believed."""


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=__doc__)
    parser.add_argument("--services", type=int, default=150)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    commit = machine.commit()
    with tempfile.TemporaryDirectory(prefix="redserve-bench-") as folder:
        measured = asyncio.run(_measure(Path(folder), arguments.services, arguments.nodes))
    result = result_of(
        measured,
        num_services=arguments.services,
        num_nodes=arguments.nodes,
        commit=commit,
    )
    text = json.dumps(result, indent=2)
    print(text)
    if not arguments.no_write:
        (RESULTS / "operator.json").write_text(f"{text}\n")
        (RESULTS / "operator.md").write_text(page_of(result))
    return 0


async def _measure(folder: Path, num_services: int, num_nodes: int) -> Measured:
    policy = folder / "audit.json"
    flags = write_policy(policy)
    with ControlPlane(folder / "cluster", api_server_arguments=flags) as cluster:
        config = cluster.kubeconfig_for(USER, ("system:masters",))
        async with (
            open_api(cluster.kubeconfig) as api,
            running(api, Behaviour(start_delay_s=0.2), nodes=num_nodes, gpus=8),
        ):
            for crd in CRDS:
                cluster.kubectl("apply", "--server-side", "-f", str(crd))
            cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
            await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
            log = folder / "operator.log"
            async with operator_process(config, log, namespace=NAMESPACE) as process:
                began = time.monotonic()
                await asyncio.gather(*(_apply(api, _manifest(n)) for n in range(num_services)))
                async with asyncio.timeout(LIMIT_S):
                    await _until_ready(api, num_services)
                ready_s = time.monotonic() - began
                await _until_quiet(policy)
                rss_mb, peak_mb = resident_mb(process.pid)
                writes = count_writes(policy)
            async with operator_process(
                config, folder / "again.log", namespace=NAMESPACE, resynced=num_services
            ) as again:
                resync_s = again.started_s
                await _until_quiet(policy)
                after_mb, _ = resident_mb(again.pid)
                return Measured(
                    seconds_until_ready=ready_s,
                    seconds_until_resynced=resync_s,
                    writes=writes,
                    writes_after_restart=(
                        of_children(count_writes(policy)) - of_children(writes)
                    ).total(),
                    rss_mb=rss_mb,
                    peak_rss_mb=peak_mb,
                    rss_after_restart_mb=after_mb,
                    control_plane_mb={
                        name: size / 2**20 for name, size in cluster.resident_bytes().items()
                    },
                )


async def _apply(api: Api, manifest: dict[str, Any]) -> None:
    name = manifest["metadata"]["name"]
    path = f"/apis/redserve.dev/v1alpha1/namespaces/{NAMESPACE}/redservices/{name}"
    await api.call("PATCH", path, manifest, content_type=APPLY_PATCH, fieldManager="bench")


async def _until_ready(api: Api, num_services: int) -> None:
    ready: set[str] = set()
    path = f"/apis/redserve.dev/v1alpha1/namespaces/{NAMESPACE}/redservices"
    async for change in api.follow(path):
        conditions = change.object.get("status", {}).get("conditions", [])
        if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            ready.add(change.object["metadata"]["name"])
            if len(ready) == num_services:
                return


async def _until_quiet(policy: Path) -> None:
    """Until the operator has written nothing for `QUIET_S` seconds (its Lease apart)."""

    def num_writes() -> int:
        counted = count_writes(policy)
        return sum(n for target, n in counted.items() if target.resource != "leases")

    last, since = num_writes(), time.monotonic()
    while time.monotonic() - since < QUIET_S:
        await asyncio.sleep(0.5)
        if (now := num_writes()) != last:
            last, since = now, time.monotonic()


def _manifest(number: int) -> dict[str, Any]:
    """Five pods: a router, two encoders, two engines with a GPU each."""
    pool = {"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    return {
        "apiVersion": "redserve.dev/v1alpha1",
        "kind": "RedService",
        "metadata": {"name": f"service-{number}"},
        "spec": {"model": {"uri": "file://demo-model"}, "encoder": pool, "llm": pool},
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ApiError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
