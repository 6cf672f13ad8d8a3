"""LeaderWorkerSets, for replicas that span nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.cluster.deployment import steps
from redserve.cluster.facts import LEADER_WORKER_SET, OPTIONAL_KINDS
from redserve.cluster.pod_template import pod_template
from redserve.cluster.resources import pods_per_replica

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

LEADER: Final = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}
"""Label that its controller puts on the first pod of each replica, the one that is talked to."""
MAX_NAME: Final = 48
"""Longest name: its StatefulSets are called NAME-000, and their pods have a label with 11
characters more."""


def leader_worker_set(scope: Scope, pool: Role) -> Manifest:
    """The LeaderWorkerSet of a pool in one revision, without its size.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    return {
        "apiVersion": OPTIONAL_KINDS[LEADER_WORKER_SET],
        "kind": LEADER_WORKER_SET,
        "metadata": scope.revision_metadata(pool),
        "spec": {
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": steps(scope, pool),
            },
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": pods_per_replica(scope.service, pool),
                # A replica is one model: without one of its pods the others hold nothing of use.
                "restartPolicy": "RecreateGroupOnPodRestart",
                "workerTemplate": pod_template(scope, pool),
            },
        },
    }
