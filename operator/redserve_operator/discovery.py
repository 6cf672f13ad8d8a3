"""What the cluster can do: its version and the kinds that other projects bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cluster.facts import OPTIONAL_KINDS, ClusterFacts
from redserve_operator.kube.kinds import REDPOOL, REDSERVICE

if TYPE_CHECKING:
    from redserve_operator.kube.client import KubeClient

RENEW_S = 180.0
"""How often the cluster is asked again, seconds."""


async def cluster_facts(client: KubeClient) -> ClusterFacts:
    """Ask the API server; raises `KubeError`."""
    version = await client.server_version()
    kinds = {
        kind
        for kind, api_version in OPTIONAL_KINDS.items()
        if kind in await client.served_kinds(api_version)
    }
    # Some vendors write "34+".
    minor = "".join(digit for digit in str(version.get("minor", "")) if digit.isdigit())
    return ClusterFacts(minor=int(minor) if minor else ClusterFacts().minor, kinds=frozenset(kinds))


async def definitions_are_there(client: KubeClient) -> bool:
    """Whether both of our own kinds are served; raises `KubeError`."""
    served = await client.served_kinds(REDSERVICE.api_version)
    return {REDSERVICE.name, REDPOOL.name} <= served
