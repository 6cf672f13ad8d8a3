"""Is the manifest usable: as an object of ours, on this cluster, for the API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from redserve.spec.problems import problems_of
from redserve.spec.service import RedService
from redserve.spec.yaml_source import YamlSource
from redserve_operator.decide import reasons
from redserve_operator.decide.pool_view import QUOTA
from redserve_operator.decide.reasons import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redserve.cluster.facts import Manifest, Refusal, Rendered
    from redserve_operator.decide.observed import Probed

_MAX_PROBLEMS: Final = 5


class ManifestRefused(Exception):
    """The manifest cannot be kept.

    Attributes:
        verdict: For the condition Accepted.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


def parse(resource: Mapping[str, Any]) -> RedService:
    """The manifest in an object of the API server.

    Labels and annotations are left out: they are the object's, and Kubernetes allows more in them
    than manifests of ours do.

    Raises:
        ManifestRefused: Something is in it that the CustomResourceDefinition lets through.
    """
    try:
        return RedService.model_validate(manifest_of(resource))
    except ValidationError as error:
        manifest = manifest_of(resource)
        problems = problems_of(error, RedService, YamlSource.parse(json.dumps(manifest)))
        told = [f"{one.field}: {one.message}" for one in problems[:_MAX_PROBLEMS]]
        if len(problems) > _MAX_PROBLEMS:
            told.append(f"and {len(problems) - _MAX_PROBLEMS} more")
        raise ManifestRefused(reasons.INVALID_MANIFEST.says("; ".join(told))) from None


def manifest_of(resource: Mapping[str, Any]) -> Manifest:
    """What the user wrote of an object, with the schema's defaults."""
    metadata = resource["metadata"]
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace") if key in metadata},
        "spec": resource.get("spec"),
    }


def refuse(refusals: Sequence[Refusal]) -> None:
    """Raise for the first refusal; the others are told in the message.

    Raises:
        ManifestRefused: There are refusals.
    """
    if refusals:
        told = "; ".join(f"{one.field}: {one.message}" for one in refusals)
        raise ManifestRefused(Verdict("False", refusals[0].reason, told))


def probe_pods(rendered: Rendered, *, with_loader: bool) -> tuple[Manifest, ...]:
    """One pod of each pool, and the loader's if it is yet to run, for a dry run of the API server.

    Without the ServiceAccounts that we make ourselves: whether they are there says nothing about
    the manifest, and one that is may be leaving with a RedService of the same name that is gone.
    """
    ours = {
        shared["metadata"]["name"]
        for shared in rendered.shared
        if shared["kind"] == "ServiceAccount"
    }
    workloads = [pool.workload for pool in rendered.pools]
    if with_loader and rendered.loader is not None:
        workloads.insert(0, rendered.loader)
    return tuple(_pod(workload, ours) for workload in workloads)


def judge_probe(probed: Probed) -> None:
    """What the dry run says about the manifest.

    A used-up quota refuses nothing: pods are created as it allows, and the pool says what is short.

    Raises:
        ManifestRefused: The API server does not take a pod.
    """
    refused = {
        pool: message for pool, message in sorted(probed.refused.items()) if QUOTA not in message
    }
    if refused:
        told = "; ".join(f"{pool}: {message}" for pool, message in refused.items())
        raise ManifestRefused(reasons.INVALID_POD_TEMPLATE.says(told))


def _pod(workload: Manifest, our_accounts: set[str]) -> Manifest:
    template = template_of(workload)
    spec = dict(template["spec"])
    if spec.get("serviceAccountName") in our_accounts:
        del spec["serviceAccountName"]
        spec["automountServiceAccountToken"] = False
    metadata = workload["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **(template.get("metadata") or {}),
            "generateName": f"{metadata['name']}-",
            "namespace": metadata["namespace"],
        },
        "spec": spec,
    }


def template_of(workload: Manifest) -> Manifest:
    """The pod template of a Deployment, LeaderWorkerSet or Job."""
    group = workload["spec"].get("leaderWorkerTemplate")
    template: Manifest = group["workerTemplate"] if group else workload["spec"]["template"]
    return template


def is_accepted(stored: Mapping[str, Manifest], status: Mapping[str, Any], revision: str) -> bool:
    """Whether the API server has taken the pods of this revision before."""
    accepted = stored.get("Accepted") or {}
    return accepted.get("status") == "True" and status.get("updateRevision") == revision
