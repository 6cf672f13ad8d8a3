"""The CustomResourceDefinitions, as the Helm chart and `kubectl apply` take them."""

from __future__ import annotations

from redserve.spec.crd import RED_POOL, RED_SERVICE, crd_yaml


def redservice_definition() -> str:
    """helm/redserve/files/crds/redservices.yaml."""
    return crd_yaml(RED_SERVICE)


def redpool_definition() -> str:
    """helm/redserve/files/crds/redpools.yaml."""
    return crd_yaml(RED_POOL)
