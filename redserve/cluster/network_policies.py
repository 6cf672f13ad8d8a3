"""NetworkPolicies: who may open connections to the pods of a pool, and where these may go.

RDMA traffic is not filtered by any of them: it passes by the kernel that would. NIXL over TCP
checks no key, so its ports are open to the engines of the same service and to nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from redserve.cluster import labels, names
from redserve.cluster.model_source import model_source
from redserve.cluster.ports import client_ports, grpc_port, metrics_port, ucx_ports
from redserve.cluster.resources import pods_per_replica

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

PEERS: Final[Mapping[Role, tuple[Role, ...]]] = {
    "router": (),
    "encoder": ("router", "llm"),
    "llm": ("router", "encoder"),
}
"""Who connects to a pool: routers to both, encoders to announce rows, engines to fetch them."""
_DNS: Final = (53, 5353)
"""Policies see the port of the DNS pods, which is 5353 in some distributions."""
_HTTPS: Final = 443
_OTLP: Final = 4317
"""Where OTLP receivers listen for gRPC, unless the address says otherwise."""
_WEB: Final = (80, _HTTPS)
_ON_THE_WAY: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_ENDPOINT")
"""Variables, in upper or lower case, that name what a loader connects to."""
_PORTS: Final[Mapping[str, int]] = {
    "https": 443,
    **dict.fromkeys(("socks4", "socks4a", "socks5", "socks5h"), 1080),
}
"""Of addresses without one; HTTP's for all other schemes."""
_PRIVATE_4: Final = (
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16",
)  # fmt: skip
_PRIVATE_6: Final = ("::1/128", "fc00::/7", "fe80::/10")


def network_policy(scope: Scope, pool: Role) -> Manifest:
    """The policy of a pool, for its pods in every revision.

    Raises:
        ConfigError: A `podTemplate` cannot be merged.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": scope.shared_metadata(names.pool_name(scope.name, pool), pool),
        "spec": {
            "podSelector": {"matchLabels": labels.pool_selector(scope.name, pool)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": _ingress(scope, pool),
            "egress": _egress(scope, pool),
        },
    }


def _ingress(scope: Scope, pool: Role) -> list[dict[str, Any]]:
    service = scope.service
    rules: list[dict[str, Any]] = []
    # By name where the port may change: the policy also covers pods of the former revision.
    if pool == "router":
        rules.append({"ports": _tcp(*(port.name for port in client_ports(service)))})
    else:
        for peer in PEERS[pool]:
            rules.append({"from": [_pods(scope, peer)], **_data_ports(scope, peer, pool)})
    metrics = metrics_port(service, pool)
    if metrics.name == "metrics":
        # Of any namespace: where Prometheus runs differs from cluster to cluster.
        rules.append({"from": [{"namespaceSelector": {}}], "ports": _tcp(metrics.name)})
    return rules + _group_rules(scope, pool, "from")


def _egress(scope: Scope, pool: Role) -> list[dict[str, Any]]:
    dns = [{"protocol": protocol, "port": port} for protocol in ("UDP", "TCP") for port in _DNS]
    rules: list[dict[str, Any]] = [{"ports": dns}]
    rules += [
        {"to": [_pods(scope, other)], **_data_ports(scope, pool, other)}
        for other, peers in PEERS.items()
        if pool in peers
    ]
    if pool == "router":
        # No policy can name the API server; its port is what is known of it.
        rules.append({"ports": _tcp(*sorted({_HTTPS, *scope.context.api_server_ports}))})
        rules += _media_rules(scope)
    if model_source(scope.service.spec.model).filled_by == "init":
        rules.append({"ports": _tcp(*sorted({*_WEB, *_ports_on_the_way(scope, pool)}))})
    tracing = scope.service.spec.monitoring.tracing
    if tracing is not None:
        # Wherever the receiver is: a host name says nothing to a policy.
        rules.append({"ports": _tcp(urlsplit(tracing.otlp_endpoint).port or _OTLP)})
    return rules + _group_rules(scope, pool, "to")


def _ports_on_the_way(scope: Scope, pool: Role) -> Iterator[int]:
    """Ports of proxies and mirrors that the pool's environment names."""
    for variable in scope.pool(pool).env:
        if variable.name.upper() not in _ON_THE_WAY or not variable.value:
            continue
        address = variable.value if "://" in variable.value else f"http://{variable.value}"
        try:
            parts = urlsplit(address)
            yield parts.port or _PORTS.get(parts.scheme, 80)
        except ValueError:
            continue  # no address: the loader says so


def _media_rules(scope: Scope) -> list[dict[str, Any]]:
    """Pictures by address may be on any port, but not inside of the cluster unless that is said."""
    media = scope.service.spec.router.media
    if media.url_fetch == "Disabled":
        return []
    if media.private_addresses == "Enabled":
        return [{"to": [{"ipBlock": {"cidr": cidr}} for cidr in ("0.0.0.0/0", "::/0")]}]
    public = (("0.0.0.0/0", _PRIVATE_4), ("::/0", _PRIVATE_6))
    blocks = [{"ipBlock": {"cidr": cidr, "except": list(inner)}} for cidr, inner in public]
    return [{"to": blocks}]


def _group_rules(scope: Scope, pool: Role, side: str) -> list[dict[str, Any]]:
    """Pods of one replica talk on ports of their own choice."""
    grouped = pods_per_replica(scope.service, pool) > 1
    return [{side: [_pods(scope, pool)]}] if grouped else []


def _data_ports(scope: Scope, source: Role, target: Role) -> dict[str, Any]:
    """Ports of a connection between two pools."""
    ports = _tcp(grpc_port(scope.service, target))
    # Whoever fetches connects; encoders never connect to an engine's NIXL.
    ucx = ucx_ports(scope.service, target) if (source, target) == ("llm", "encoder") else None
    if ucx is not None:
        ports.append({"protocol": "TCP", "port": ucx.first, "endPort": ucx.last})
    return {"ports": ports}


def _pods(scope: Scope, pool: Role) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": labels.pool_selector(scope.name, pool)}}


def _tcp(*ports: int | str) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]
