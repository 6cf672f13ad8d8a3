"""Installs both CustomResourceDefinitions and waits until they can be used."""

from __future__ import annotations

import http.client
from functools import partial
from typing import TYPE_CHECKING

from redserve.spec.crd import KINDS
from redserve.spec.service import API_VERSION
from tests.kubernetes.waiting import eventually
from tests.spec.manifests import ROOT
from tools.kubernetes.async_api import ApiError

if TYPE_CHECKING:
    from tools.kubernetes.control_plane import ControlPlane

CRDS = ROOT / "helm/redserve/files/crds"


def install(control_plane: ControlPlane) -> None:
    """Apply what the chart carries. Harmless when it is there already."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    for kind in KINDS:
        eventually(partial(_is_writable, control_plane, kind.plural))


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
