"""docs/reference/ucx.md: what UCX is told, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.cluster.ports import POD_DEVICE
from redserve.cluster.ports import UCX_PORTS as POD_PORTS
from redserve.local.ports import LOOPBACK_DEVICE
from redserve.local.ports import UCX_PORTS as LOCAL_PORTS
from redserve.spec.ucx import PORT_RANGE, ucx_variables
from tools.docs.markdown import code, page, table

if TYPE_CHECKING:
    from redserve.spec.settings import TransportKind

SECTIONS: Final[dict[str, TransportKind]] = {
    "Types RDMA and Auto": "rdma",
    "Type TCP": "tcp",
}
INTRODUCTION: Final = (
    "NIXL moves bytes by UCX, which reads its settings from the environment. `redserve up` and the "
    "operator set these variables for encoders and LLM engines, and nothing else does. The `env` "
    "of a pool in the manifest comes after them and wins:",
    "",
    "```yaml",
    "spec:",
    "  encoder:",
    "    env: [{name: UCX_NET_DEVICES, value: 'mlx5_0:1'}]",
    "  llm:",
    "    env: [{name: UCX_NET_DEVICES, value: 'mlx5_0:1'}]",
    "```",
    "",
    "Write the same for both pools. With the types GRPC and InProcess nothing is set. How the "
    "types differ: [transport.md](../transport.md).",
    "",
)
_TWO_PLACES: Final = {
    "UCX_NET_DEVICES": (LOOPBACK_DEVICE, POD_DEVICE),
    PORT_RANGE: (str(LOCAL_PORTS), str(POD_PORTS)),
}


def ucx_page() -> str:
    """The page."""
    lines = list(INTRODUCTION)
    for title, kind in SECTIONS.items():
        made = ucx_variables(kind, net_devices=POD_DEVICE, port_range=POD_PORTS)
        rows = ((code(one.name), _values(one.name, one.value), one.reason) for one in made)
        lines += [f"## {title}", *table(("variable", "value", "why"), rows), ""]
    return page("UCX settings", *lines)


def _values(name: str, value: str) -> str:
    if name not in _TWO_PLACES:
        return code(value)
    local, pod = _TWO_PLACES[name]
    return f"{code(local)} under `redserve up`, {code(pod)} in a pod"
