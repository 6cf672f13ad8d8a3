"""Installs CustomResourceDefinitions and waits until they can be used."""

from __future__ import annotations

import http.client
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from redserve.spec.crd import KINDS
from redserve.spec.service import API_VERSION
from redserve_operator.kube.kinds import optional
from tests.kubernetes.waiting import eventually
from tests.spec.manifests import ROOT
from tools.kubernetes.async_api import ApiError
from tools.kubernetes.definitions import prometheus_operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.kubernetes.control_plane import ControlPlane

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRDS = ROOT / "helm/redserve/files/crds"


def install(control_plane: ControlPlane) -> None:
    """Apply what the chart carries. Harmless when it is there already."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    for kind in KINDS:
        eventually(partial(_is_writable, control_plane, kind.plural))


def serve(control_plane: ControlPlane, kind: str) -> None:
    """Have a kind of the Prometheus operator served, by its own definition."""
    control_plane.api.post(DEFINITIONS, prometheus_operator(kind))
    eventually(lambda: is_served(control_plane, kind))


def withdraw(control_plane: ControlPlane, kind: str) -> None:
    """Take it away with all objects, which lasts. Harmless when it is not there."""
    one = optional(kind)
    path = f"{DEFINITIONS}/{one.plural}.{one.group}"
    if control_plane.api.exists(path):
        control_plane.api.delete(path)
    eventually(lambda: not control_plane.api.exists(path))


@contextmanager
def served(control_plane: ControlPlane, *kinds: str) -> Iterator[None]:
    """Kinds of the Prometheus operator are served as long as the context lasts."""
    try:
        for kind in kinds:
            serve(control_plane, kind)
        yield
    finally:
        for kind in kinds:
            withdraw(control_plane, kind)


def is_served(control_plane: ControlPlane, kind: str) -> bool:
    """Whether objects of a kind can be listed."""
    try:
        return control_plane.api.exists(optional(kind).path("default"))
    except ApiError:
        return False  # its storage is being prepared


def path_of(namespace: str, plural: str, *more: str) -> str:
    """Path of a custom resource's collection, object or subresource."""
    return "/".join((f"/apis/{API_VERSION}/namespaces/{namespace}/{plural}", *more))


def _is_writable(control_plane: ControlPlane, plural: str) -> bool:
    """An established kind is not yet served, and one that is read may still refuse writes (429)."""
    try:
        control_plane.api.post(f"{path_of('default', plural)}?dryRun=All", {})
    except ApiError as error:
        return error.status not in {http.client.NOT_FOUND, http.client.TOO_MANY_REQUESTS}
    return True
