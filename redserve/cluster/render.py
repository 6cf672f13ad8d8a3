"""A RedService as Kubernetes objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cluster.accounts import accounts
from redserve.cluster.deployment import deployment
from redserve.cluster.disruption import disruption_budget
from redserve.cluster.environment import config_map
from redserve.cluster.facts import PoolObjects, Rendered
from redserve.cluster.leader_worker_set import leader_worker_set
from redserve.cluster.loader import loader_job
from redserve.cluster.names import POOLS
from redserve.cluster.network_policies import network_policy
from redserve.cluster.pod_monitor import pod_monitor
from redserve.cluster.red_pools import red_pool, seeded_replicas
from redserve.cluster.resources import pods_per_replica
from redserve.cluster.revision import revision_of
from redserve.cluster.rules import rules
from redserve.cluster.scope import Scope
from redserve.cluster.services import front_service, headless_service

if TYPE_CHECKING:
    from redserve.cluster.facts import Context, Manifest
    from redserve.spec.placement import Role
    from redserve.spec.service import RedService


def render(service: RedService, context: Context) -> Rendered:
    """Everything that a service needs. Says nothing about what a release or cluster cannot keep.

    Raises:
        ConfigError: A `podTemplate` cannot be merged; `check` says so too.
    """
    unnamed = Scope(service, context)
    revision = revision_of(_pool_objects(unnamed, pool) for pool in POOLS)
    scope = Scope(service, context, revision)
    return Rendered(
        revision=revision,
        shared=tuple(_shared(scope)),
        pools=tuple(_pool_objects(scope, pool) for pool in POOLS),
        loader=loader_job(scope),
    )


def _shared(scope: Scope) -> list[Manifest]:
    policies = scope.service.spec.network_policy == "Enabled"
    watched = (pod_monitor(scope), rules(scope))
    return [
        *(red_pool(scope, pool) for pool in POOLS),
        *accounts(scope),
        front_service(scope),
        *(disruption_budget(scope, pool) for pool in POOLS),
        *(network_policy(scope, pool) for pool in POOLS if policies),
        *(one for one in watched if one is not None),
    ]


def _pool_objects(scope: Scope, pool: Role) -> PoolObjects:
    num_pods = pods_per_replica(scope.service, pool)
    make = leader_worker_set if num_pods > 1 else deployment
    return PoolObjects(
        pool=pool,
        config=config_map(scope, pool),
        service=headless_service(scope, pool),
        workload=make(scope, pool),
        replicas=seeded_replicas(scope.pool(pool)),
        pods_per_replica=num_pods,
    )
