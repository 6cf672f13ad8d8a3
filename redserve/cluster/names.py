"""Names of everything that is made for a RedService.

Longest: a 40-character service, "-encoder-" and an 8-character revision are 57 of 63.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redserve.spec.placement import Role

POOLS: Final[tuple[Role, ...]] = ("encoder", "llm", "router")
"""In the order in which they become useful: a router is ready when both others are."""
MAIN_CONTAINER: Final = "main"
"""The serving container of every pod; what `podTemplate` merges into."""


def pool_name(service: str, pool: Role) -> str:
    """RedPool, PodDisruptionBudget and NetworkPolicy of a pool: the same in every revision."""
    return f"{service}-{pool}"


def revision_name(service: str, pool: Role, revision: str) -> str:
    """Workload, headless Service and ConfigMap of a pool in one revision."""
    return f"{service}-{pool}-{revision}"


def front_service(service: str) -> str:
    """The Service that clients use."""
    return service


def router_account(service: str) -> str:
    """ServiceAccount, Role and RoleBinding of the routers, which read EndpointSlices."""
    return f"{service}-router"


def worker_account(service: str) -> str:
    """ServiceAccount of encoders and engines, which may ask the API server for nothing."""
    return f"{service}-worker"


def rules_config_map(service: str) -> str:
    """The ConfigMap with the rule file, where the kind PrometheusRule is not served.

    Those of pools end in a revision, so that no service can have one of this name for a pool.
    """
    return f"{service}-rules"


def loader_job(service: str, digest: str) -> str:
    """The Job that fills the model volume with one checkpoint."""
    return f"{service}-model-{digest}"
