"""Who downloads a checkpoint from a hub: one Job for a volume, or an init container in each pod."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster import labels, names
from redserve.cluster.accounts import account_name
from redserve.cluster.blanks import without_blanks
from redserve.cluster.container import image
from redserve.cluster.environment import manifest_environment
from redserve.cluster.model_source import model_source
from redserve.cluster.pull_secrets import pull_secrets
from redserve.cluster.resources import main_resources, plain_resources
from redserve.cluster.security import loader_security, pod_security
from redserve.cluster.strategic_merge import merge_pod_template
from redserve.cluster.volumes import scratch_mount, scratch_volume
from redserve.spec.settings import FetchSettings

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

CONTAINER: Final = "fetch"
COMPONENT: Final = "model"
"""Value of the component label on the Job and its pods, which belong to no pool."""
_REPORT: Final = "/dev/termination-log"
_NEVER: Final = 2
"""Exit code of `redserve.fetch` when trying again is useless."""
_RETRIES: Final = 6
_PLACING: Final = (
    "dnsConfig",
    "dnsPolicy",
    "hostAliases",
    "imagePullSecrets",
    "nodeSelector",
    "preemptionPolicy",
    "priorityClassName",
    "schedulerName",
    "securityContext",
    "tolerations",
)
"""What the Job takes from the routers' `podTemplate`."""
_OFFLINE: Final = frozenset({"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"})
"""Words for servers that would keep the loader from loading."""


def loader_job(scope: Scope) -> Manifest | None:
    """The Job that fills the model volume; None when nothing is to be filled.

    Its name is that of the checkpoint and its volume, so it runs once for both, whatever else
    changes. Kubernetes lets nobody change a Job's pods: whoever applies it leaves one that has
    finished alone, and deletes one that has not before making it anew. It takes its image,
    environment, resources and place from the router, the lightest of the pools.

    Raises:
        ConfigError: The router's `podTemplate` cannot be merged.
    """
    source = model_source(scope.service.spec.model)
    if source.filled_by != "job":
        return None
    job_labels = {**labels.service_labels(scope.name), labels.COMPONENT: COMPONENT}
    metadata = scope.shared_metadata(names.loader_job(scope.name, _digest(scope)))
    pod: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": account_name(scope, None),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(scope, None),
        "volumes": [scratch_volume(), *source.volumes()],
        # The manifest's word, not the commit that it was resolved to: this is what resolves it.
        "containers": [_container(scope, "router", scope.service.spec.model.revision or "")],
    }
    secrets = pull_secrets(scope)
    if secrets:
        pod["imagePullSecrets"] = secrets
    pod = _as_routers_are_placed(scope, pod)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "labels": job_labels},
        "spec": {
            "backoffLimit": _RETRIES,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [_disruption()]},
                    {"action": "FailJob", "onExitCodes": _never()},
                ]
            },
            "template": {"metadata": {"labels": job_labels}, "spec": pod},
        },
    }


def _as_routers_are_placed(scope: Scope, pod: Manifest) -> Manifest:
    """The pod with what the routers' `podTemplate` says of where and as whom pods may run.

    Raises:
        ConfigError: It cannot be merged, and so not into the routers either.
    """
    patch = (scope.pool("router").pod_template or {}).get("spec")
    if not isinstance(patch, dict):
        return pod
    taken = {field: patch[field] for field in _PLACING if field in patch}
    affinity = patch.get("affinity")
    # Rules about other pods are the routers' own.
    if isinstance(affinity, dict) and "nodeAffinity" in affinity:
        taken["affinity"] = {"nodeAffinity": affinity["nodeAffinity"]}
    merged = merge_pod_template({"spec": pod}, {"spec": taken}, "spec.router.podTemplate")
    placed: Manifest = without_blanks(merged["spec"])
    return placed


def init_containers(scope: Scope, pool: Role) -> list[dict[str, Any]]:
    """`initContainers` of a pool's pods: the loader, where each pod fills its own scratch space."""
    model = scope.service.spec.model
    if model_source(model).filled_by != "init":
        return []
    return [_container(scope, pool, scope.context.model_revision or model.revision or "")]


def _container(scope: Scope, pool: Role, revision: str) -> dict[str, Any]:
    source = model_source(scope.service.spec.model)
    token = scope.service.spec.model.token_secret_ref
    job = source.filled_by == "job"
    settings = FetchSettings(
        model_uri=source.uri,
        model_revision=revision,
        cache_dir=source.cache_dir,
        # The Job fills the volume for all pools; a router's own scratch space needs no weights.
        weights=job or pool != "router",
        report_file=_REPORT,
        log_level="info",
        log_format="json",
    )
    env: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in settings.to_env().items()
    ]
    if token is not None:
        key = {"name": token.name, "key": token.key}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": key}})
    taken = {variable["name"] for variable in env}
    own = manifest_environment(scope.pool(pool))
    made: dict[str, Any] = {
        "name": CONTAINER,
        # Only the router's image is sure to have the hub's client and nothing that is not needed.
        **image(scope, "router"),
        "command": ["python", "-m", "redserve.fetch"],
        # Proxies and mirrors of the hub are said in the pool's environment.
        "env": env + [variable for variable in own if variable["name"] not in taken | _OFFLINE],
        "securityContext": loader_security(),
        "volumeMounts": [scratch_mount(), *source.mounts(writable=True)],
        "terminationMessagePath": _REPORT,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    resources = plain_resources(main_resources(scope.service, pool))
    return made | ({"resources": resources} if resources else {})


def _digest(scope: Scope) -> str:
    model = scope.service.spec.model
    claim = model_source(model).claim
    text = json.dumps([model.uri, model.revision or "", claim])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _disruption() -> dict[str, str]:
    return {"type": "DisruptionTarget", "status": "True"}


def _never() -> dict[str, Any]:
    return {"containerName": CONTAINER, "operator": "In", "values": [_NEVER]}
