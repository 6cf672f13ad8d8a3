"""Whether what UCX is told makes NIXL over TCP, and not something else under that name. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.spec.ucx import PORT_RANGE, PortRange

if TYPE_CHECKING:
    from collections.abc import Mapping

_WITHIN: Final = {"self", "cuda_copy", "cuda_ipc"}
"""What moves bytes within a process or between its GPUs."""


def wrong(in_force: Mapping[str, str]) -> str | None:
    """What is wrong with UCX's variables for TCP; None when nothing is.

    Args:
        in_force: Those that are set, by name.
    """
    listed = in_force.get("UCX_TLS", "")
    names = {part.strip().removeprefix("\\") for part in listed.split(",")}
    if "tcp" not in names or not names <= {"tcp"} | _WITHIN:
        # Status and metrics would say "tcp" of bytes that travel otherwise.
        return (
            f"UCX_TLS={listed or '(not set)'} is not TCP alone: write type RDMA or Auto if that is "
            "meant, or remove UCX_TLS from the pool's env, which leaves tcp"
        )
    ports = in_force.get(PORT_RANGE)
    if ports is not None and PortRange.parse(ports) is None:
        return (
            f"{PORT_RANGE}={ports} is no range of ports: write FIRST-LAST, such as 29600-29615, or "
            "remove it from the pool's env"
        )
    return None
