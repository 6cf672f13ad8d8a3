"""The serving container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.environment import config_source, container_environment
from redserve.cluster.names import MAIN_CONTAINER
from redserve.cluster.ports import pod_ports
from redserve.cluster.probes import probes
from redserve.cluster.resources import main_resources
from redserve.cluster.security import main_security
from redserve.cluster.volumes import mounts
from redserve.spec.workloads import MODULES

if TYPE_CHECKING:
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

PRE_STOP_S: Final = 5
"""Time for routers and load balancers to forget a pod before it is told to stop, seconds."""
POST_DRAIN_S: Final = 10
"""Time to close connections and files after the last stream, seconds."""


def main_container(scope: Scope, pool: Role) -> dict[str, Any]:
    """The container that serves, without what `podTemplate` says.

    Raises:
        ConfigError: A `podTemplate` cannot be merged.
    """
    spec = scope.pool(pool)
    made: dict[str, Any] = {
        "name": MAIN_CONTAINER,
        **image(scope, pool),
        # Our own words are the command, so that `args` are the user's alone.
        "command": ["python", "-m", MODULES[pool]],
        "envFrom": config_source(scope, pool),
        "env": container_environment(scope, pool),
        "ports": [
            {"name": port.name, "containerPort": port.number, "protocol": "TCP"}
            for port in pod_ports(scope.service, pool)
        ],
        **probes(scope, pool),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "securityContext": main_security(scope, pool),
        "volumeMounts": mounts(scope, pool),
        # The sentence with which a process gives up becomes the reason in the status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if spec.extra_args:
        made["args"] = list(spec.extra_args)
    resources = main_resources(scope.service, pool)
    if resources:
        made["resources"] = resources
    return made


def image(scope: Scope, pool: Role) -> dict[str, Any]:
    """Image of a pool and when to pull it."""
    images = scope.context.images
    own = {"router": images.router, "encoder": images.encoder, "llm": images.llm}[pool]
    made = {"image": scope.pool(pool).image or own}
    return made | ({"imagePullPolicy": images.pull_policy} if images.pull_policy else {})


def grace_period_s(scope: Scope, pool: Role) -> int:
    """`terminationGracePeriodSeconds`: forgetting, draining and closing, seconds."""
    return PRE_STOP_S + scope.pool(pool).rollout.drain_timeout_seconds + POST_DRAIN_S
