"""What UCX, NIXL's transport library, is told by environment: each variable with its reason.

The only place that knows these names. They come before the `env` of a pool, so that a manifest
overrides them. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redserve.spec.settings import TransportKind

PORT_RANGE: Final = "UCX_TCP_PORT_RANGE"
"""Also read from a manifest, since NetworkPolicies must say the same."""
_RDMA_LIST: Final = "rc,cuda_copy,cuda_ipc,self"
_TCP_LIST: Final = "tcp"
_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class PortRange:
    """TCP ports, both ends included.

    UCX tries ports of a range at random until one is free, and does so for ever: a range must have
    room to spare for all processes that share a network.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last <= _MAX_PORT:
            raise ValueError(f"{self.first}-{self.last} is no range of ports")

    @classmethod
    def parse(cls, text: str) -> PortRange | None:
        """A range as UCX writes it, "first-last" or one port; None when it is something else."""
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text.strip())
        if match is None:
            return None
        try:
            return cls(int(match[1]), int(match[2] or match[1]))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class UcxVariable:
    """A variable of UCX.

    Attributes:
        name: As UCX reads it.
        value: What it is set to.
        reason: Why, as a sentence for the documentation.
    """

    name: str
    value: str
    reason: str


def ucx_environment(
    kind: TransportKind, *, net_devices: str = "", port_range: PortRange | None = None
) -> dict[str, str]:
    """The environment of an encoder or an engine whose data path is `kind`.

    Args:
        kind: The data path that is asked for. gRPC and InProcess need no UCX.
        net_devices: Network interface of TCP; empty leaves UCX its choice. RDMA chooses its own.
        port_range: Ports that TCP listens on; None takes any.
    """
    made = ucx_variables(kind, net_devices=net_devices, port_range=port_range)
    return {variable.name: variable.value for variable in made}


def ucx_variables(
    kind: TransportKind, *, net_devices: str = "", port_range: PortRange | None = None
) -> tuple[UcxVariable, ...]:
    """The same with the reasons."""
    if kind == "tcp":
        return (*_tcp(net_devices, port_range), *_SHARED)
    if kind in ("rdma", "auto"):
        return (_RDMA, *_SHARED)
    return ()


def _tcp(net_devices: str, port_range: PortRange | None) -> tuple[UcxVariable, ...]:
    made = [_TCP, *_SEGMENTS]
    if net_devices:
        made.append(UcxVariable("UCX_NET_DEVICES", net_devices, _DEVICES_REASON))
    if port_range is not None:
        made.append(UcxVariable(PORT_RANGE, str(port_range), _PORTS_REASON))
    return tuple(made)


_RDMA: Final = UcxVariable(
    "UCX_TLS",
    _RDMA_LIST,
    "Reliable connections of InfiniBand and RoCE (`rc` brings the datagrams that it needs to "
    "connect), copies of GPU memory, and a process with itself. Without `tcp`: a missing device "
    "is an error at the start, not a transfer that is a hundred times slower. Without `cuda_copy` "
    "UCX would take GPU memory for memory of the host. What a machine has not is passed over.",
)
_TCP: Final = UcxVariable(
    "UCX_TLS",
    _TCP_LIST,
    "TCP and nothing else, not even memory that two processes share, so that what is measured is "
    "what was asked for. Embeddings lie in memory of the host, so nothing of CUDA is needed.",
)
_SEGMENTS: Final = (
    UcxVariable(
        "UCX_TCP_TX_SEG_SIZE",
        "512k",
        "UCX sends a read in segments of 8 KiB unless told otherwise, which is three to four times "
        "slower for embeddings. 256k is a tenth to a fifth slower, 1m is not faster.",
    ),
    UcxVariable(
        "UCX_TCP_RX_SEG_SIZE",
        "512k",
        "Must be at least that of sending, or UCX refuses to start: change both or neither.",
    ),
    UcxVariable(
        "UCX_TCP_SYN_CNT",
        "1",
        "UCX connects in the thread that serves all reads of a process, and with the kernel's own "
        "patience a peer whose port swallows packets would keep it for two minutes; so it is three "
        "seconds.",
    ),
)
_SHARED: Final = (
    UcxVariable(
        "UCX_KEEPALIVE_INTERVAL",
        "2s",
        "A peer that is gone without a word (its node is down) is noticed sooner than by UCX's own "
        "20 s. Deadlines of transfers do not depend on it.",
    ),
    UcxVariable(
        "UCX_LOG_LEVEL",
        "error",
        "At `warn` UCX writes a line about every transfer that a peer's death interrupts, which "
        "is told by a metric, and about each transport of the list that a machine has not. Set "
        "`info` to see which devices it uses.",
    ),
)
_DEVICES_REASON: Final = (
    "UCX otherwise spreads TCP over all interfaces, loopback included. `lo` under `redserve up`, "
    "`eth0` in pods, as Kubernetes names the interface of a pod's network. UCX listens on the "
    "address of this interface only."
)
_PORTS_REASON: Final = (
    "Ports that can be named in a NetworkPolicy, below those from which the kernel takes ports for "
    "outgoing connections. A process takes one. UCX tries ports of the range at random, for ever "
    "if none is free."
)
