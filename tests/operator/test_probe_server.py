from __future__ import annotations

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from redserve.errors import ConfigError
from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve_operator.http import ProbeServer


async def test_probes_and_figures() -> None:
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry)
    trouble = {"alive": "", "ready": "waits for the Lease"}
    server = ProbeServer(
        registry,
        refresh=lambda: metrics.queue_depth.set(7),
        not_alive=lambda: trouble["alive"],
        not_ready=lambda: trouble["ready"],
    )
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

            async def ask(path: str) -> tuple[int, str]:
                async with session.get(path) as answer:
                    return answer.status, await answer.text()

            assert await ask("/healthz") == (200, "ok\n")
            assert await ask("/readyz") == (503, "waits for the Lease\n")
            trouble |= {"alive": "stuck", "ready": ""}
            assert await ask("/healthz") == (503, "stuck\n")
            assert await ask("/readyz") == (200, "ok\n")
            status, text = await ask("/metrics")
            assert status == 200
            assert "redserve_operator_queue_depth 7.0" in text
        other = ProbeServer(
            registry, refresh=lambda: None, not_alive=lambda: "", not_ready=lambda: ""
        )
        with pytest.raises(ConfigError, match="cannot serve probes"):
            await other.start("127.0.0.1", port)
    finally:
        await server.stop()
