"""How Prometheus finds the processes of a service that runs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from redserve.local.state import ServiceState

LOCAL: Final = "local"
"""Revision of everything on this machine, and its namespace where the manifest has none."""
RULE_FILES: Final = "*.rules.yaml"
"""Next to the configuration."""
INTERVAL: Final = "5s"


def scrape_config(state: ServiceState, namespace: str | None = None) -> dict[str, Any]:
    """A whole configuration; its series have the labels that they would have in a cluster.

    Ports are those of this run: a service that is started anew may have others.

    Args:
        state: What runs.
        namespace: Instead of the manifest's.
    """
    return {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [RULE_FILES],
        "scrape_configs": [
            {
                "job_name": "redserve",
                "static_configs": [
                    {
                        "targets": [process.metrics_address],
                        "labels": {
                            # Rules that were made of the same manifest look for it.
                            "namespace": namespace or state.namespace or LOCAL,
                            "redservice": state.service,
                            "pool": process.role,
                            "revision": LOCAL,
                            "pod": process.name,
                        },
                    }
                    for process in state.processes
                    if process.metrics_address is not None
                ],
            }
        ],
    }
