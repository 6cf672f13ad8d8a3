"""Who pods are to the API server: routers may read EndpointSlices, the others may ask nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cluster import names

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

_RBAC = "rbac.authorization.k8s.io"


def account_name(scope: Scope, pool: Role | None) -> str:
    """ServiceAccount of a pool's pods, or of the loader's."""
    own = names.router_account if pool == "router" else names.worker_account
    return scope.service.spec.service_account_name or own(scope.name)


def router_account(scope: Scope) -> str:
    """ServiceAccount that the routers have in the end: a `podTemplate` may name another one."""
    patch = (scope.pool("router").pod_template or {}).get("spec")
    if isinstance(patch, dict) and "serviceAccountName" in patch:
        return str(patch["serviceAccountName"] or "default")
    return account_name(scope, "router")


def accounts(scope: Scope) -> list[Manifest]:
    """ServiceAccounts, unless the manifest names one, and the routers' rights."""
    name = names.router_account(scope.name)
    role: Manifest = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role",
        "metadata": scope.shared_metadata(name, "router"),
        "rules": [
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["get", "list", "watch"],
            }
        ],
    }
    binding: Manifest = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": scope.shared_metadata(name, "router"),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [
            {
                "kind": "ServiceAccount",
                "name": router_account(scope),
                "namespace": scope.context.namespace,
            }
        ],
    }
    return [*_service_accounts(scope), role, binding]


def _service_accounts(scope: Scope) -> list[Manifest]:
    if scope.service.spec.service_account_name:
        return []
    router, worker = names.router_account(scope.name), names.worker_account(scope.name)
    # Tokens are mounted where a pod asks for one, never because of its account.
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata,
            "automountServiceAccountToken": False,
        }
        for metadata in (scope.shared_metadata(router, "router"), scope.shared_metadata(worker))
    ]
