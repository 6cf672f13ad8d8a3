"""What the cluster can do, and what of it this operator is let see.

kopf ends the whole process when one list or watch is refused for a minute. So what cannot be listed
at the start is left out of what is watched, and asked for again now and then: a namespace that is
gone, or a kind of another project whose conversion is broken, ends the service for itself only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.cluster.facts import OPTIONAL_KINDS, ClusterFacts
from redserve.telemetry.log import get_logger
from redserve_operator.kube.errors import Forbidden, KubeError, NotFound
from redserve_operator.kube.kinds import ALWAYS_WATCHED, REDPOOL, REDSERVICE, optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve_operator.kube.client import KubeClient

log = get_logger()

RENEW_S = 180.0
"""How often the cluster is asked again, seconds."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What is there to be watched.

    Attributes:
        facts: Version and kinds; a kind that is served and cannot be listed counts as not served.
        served: Kinds that are served, whether they can be listed or not.
        namespaces: Those of the named ones that may be read; empty without names.
        aside: Those that may not.
    """

    facts: ClusterFacts
    served: frozenset[str]
    namespaces: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


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


async def reach(client: KubeClient, namespaces: Sequence[str]) -> Reach:
    """What may be watched now; `namespaces` empty is everywhere. Raises `KubeError`."""
    facts = await cluster_facts(client)
    refused = {name: await _why_not(client, name) for name in namespaces}
    for name, why in refused.items():
        if why:
            log.warning("namespace set aside", namespace=name, why=why)
    there = tuple(name for name, why in refused.items() if not why)
    listed = {
        kind
        for kind in facts.kinds
        if all([await _is_listed(client, kind, name) for name in there or (None,)])
    }
    aside = tuple(name for name, why in refused.items() if why)
    return Reach(ClusterFacts(facts.minor, frozenset(listed)), facts.kinds, there, aside)


async def definitions_are_there(client: KubeClient) -> bool:
    """Whether both of our own kinds are served; raises `KubeError`."""
    served = await client.served_kinds(REDSERVICE.api_version)
    return {REDSERVICE.name, REDPOOL.name} <= served


async def _why_not(client: KubeClient, namespace: str) -> str:
    """Why a namespace cannot be watched; empty when it can. Raises `KubeError`."""
    try:
        for kind in ALWAYS_WATCHED:
            await client.try_list(kind, namespace)
    except (Forbidden, NotFound) as error:
        # Where it is gone, so are the rights in it: nobody can tell the two apart.
        return error.message
    return ""


async def _is_listed(client: KubeClient, kind: str, namespace: str | None) -> bool:
    try:
        await client.try_list(optional(kind), namespace)
    except KubeError as error:
        if not error.status:
            raise  # no answer: the API server itself is away
        log.warning("kind set aside", kind=kind, namespace=namespace, why=error.message)
        return False
    return True
