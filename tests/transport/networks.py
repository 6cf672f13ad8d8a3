"""Two networks that are joined by a cable, which can be cut and mended. Needs root, and `ip`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEVICE = "rs0"
"""Of the cable, at both ends."""
NEEDED = ("ip", "iptables", "mount", "nsenter", "unshare")
# UCX finds interfaces in /sys, which shows those of the network in which it was mounted.
SPACE = ("unshare", "--net", "--mount", "sh", "-ec")
OWN_SYS = "mount -t sysfs none /sys"
DROP = ("INPUT", "-j", "DROP")
FEW_RETRIES = "echo 3 > /proc/sys/net/ipv4/tcp_retries2"


def missing() -> str:
    """Why there can be no networks here; empty when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [program for program in NEEDED if shutil.which(program) is None]
    if absent:
        return f"network namespaces need {', '.join(absent)}"
    script = f"{OWN_SYS}; iptables -I {' '.join(DROP)}; {FEW_RETRIES}"
    tried = subprocess.run([*SPACE, script], capture_output=True, text=True, check=False)
    return f"not allowed here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Network:
    """A namespace, kept by a process.

    Attributes:
        address: Of its end of the cable.
    """

    pid: int
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        """A command that becomes another one, in this network."""
        return ("nsenter", "--target", str(self.pid), "--net", "--mount")

    async def run(self, *command: str) -> None:
        process = await asyncio.create_subprocess_exec(*self.inside, *command)
        assert await process.wait() == 0, command

    async def until_up(self) -> None:
        """The kernel tells of a carrier a moment after both ends are up; UCX wants to see it."""
        waiting = f"until grep -qx up /sys/class/net/{DEVICE}/operstate; do sleep 0.02; done"
        async with asyncio.timeout(30):
            await self.run("sh", "-c", waiting)

    async def cut(self) -> None:
        """Drop all that arrives, without a word."""
        await self.run("iptables", "-I", *DROP)

    async def mend(self) -> None:
        await self.run("iptables", "-D", *DROP)

    async def give_up_early(self) -> None:
        """Silent connections are given up within seconds, and not a quarter of an hour."""
        await self.run("sh", "-c", FEW_RETRIES)


@asynccontextmanager
async def _network(address: str) -> AsyncIterator[Network]:
    keeper = await asyncio.create_subprocess_exec(
        *SPACE,
        f"{OWN_SYS}; echo; exec cat",  # until we are gone
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert keeper.stdout is not None
        await asyncio.wait_for(keeper.stdout.readline(), 30)  # it is in its network
        yield Network(keeper.pid, address)
    finally:
        keeper.kill()
        await keeper.wait()


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[Network, Network]]:
    """Both networks."""
    async with _network("10.93.7.1") as one, _network("10.93.7.2") as other:
        link = ("ip", "link", "add", "name", DEVICE, "type", "veth", "peer", "name", DEVICE)
        await one.run(*link, "netns", str(other.pid))
        for network in (one, other):
            await network.run("ip", "address", "add", f"{network.address}/24", "dev", DEVICE)
            await network.run("ip", "link", "set", "lo", "up")
            await network.run("ip", "link", "set", DEVICE, "up")
        for network in (one, other):
            await network.until_up()
        yield one, other
