"""Starts the producers and consumers of a test as processes, and looks at them from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.transport.child import peer_from_json, peer_to_json
from tests.transport.links import MIB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from redserve.transport.base import PeerInfo

KINDS = ("grpc", "tcp")
"""The data paths that leave a process on any machine."""
HERE = Path(__file__).parent
ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 500.0
CANARY = 0xA5
BIG = 160 * MIB
"""Takes any data path long enough to be hit in the middle."""
SMALL = 3 * MIB + 1


@dataclass
class Child:
    """A process that answers; see `child.py`."""

    process: asyncio.subprocess.Process
    hello: dict[str, Any]

    async def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        """Have it do something; EOFError when it died of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        return await read_answer(self.process, ANSWER_TIMEOUT_S)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """To it, and to the process that it is read from, which would go on alone.

        Not when it is killed: that one has to see to its end by itself.
        """
        for pid in self.tree() if number is not signal.SIGKILL else [self.process.pid]:
            os.kill(pid, number)

    async def wait(self) -> int:
        return await asyncio.wait_for(self.process.wait(), ANSWER_TIMEOUT_S)

    async def end(self, how: str) -> int:
        """Let a consumer end in one of its ways; its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": "end", "how": how}).encode() + b"\n")
        return await self.wait()

    async def kill(self) -> None:
        if self.alive:
            self.process.kill()
        await self.process.wait()

    @property
    def peer(self) -> PeerInfo:
        return peer_from_json(self.hello)

    @property
    def port(self) -> int:
        return int(self.peer.address.rpartition(":")[2])

    def tree(self) -> list[int]:
        """Its process id, and those of the processes that it has started."""
        pids = [self.process.pid]
        for pid in pids:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += [int(child) for child in children.read_text().split()]
        return pids

    def read_server(self) -> int:
        """Process id of the one that it is read from."""
        (pid,) = self.tree()[1:]
        return pid

    def num_descriptors(self) -> int:
        return sum(1 for pid in self.tree() for _ in Path(f"/proc/{pid}/fd").iterdir())

    def resident_bytes(self) -> int:
        """Of all of them; memory that they share counts for each."""
        return sum(_resident_bytes(pid) for pid in self.tree())

    def cpu_s(self) -> float:
        """Seconds that all of them have computed so far."""
        ticks = 0
        for pid in self.tree():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the process has no memory (any more)")


async def read_answer(process: asyncio.subprocess.Process, timeout_s: float) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(timeout_s):
        line = await process.stdout.readline()
    if not line:
        raise EOFError(f"the process ended with {await process.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


@asynccontextmanager
async def child(
    script: str,
    arguments: Mapping[str, object],
    *,
    inside: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Child]:
    """A process for the length of a block.

    Args:
        script: Its file, beside this one.
        arguments: What it is told.
        inside: A command that becomes another, to start it in some place.
        environment: Beside that of this process.
    """
    process = await asyncio.create_subprocess_exec(
        *inside,
        sys.executable,
        str(HERE / script),
        json.dumps(arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )
    try:
        running = Child(process, await read_answer(process, START_TIMEOUT_S))
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def producer(
    kind: str, *sizes: int, port: int = 0, ttl_s: float = 30.0
) -> AbstractAsyncContextManager[Child]:
    arguments = {"kind": kind, "host": "127.0.0.1", "port": port, "sizes": sizes, "ttl_s": ttl_s}
    return child("producer_process.py", arguments)


def consumer(kind: str, pool_bytes: int) -> AbstractAsyncContextManager[Child]:
    return child("consumer_process.py", {"kind": kind, "pool_bytes": pool_bytes})


async def answer_until(
    asked: Child, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 30.0
) -> dict[str, Any]:
    """Ask for its state until that is as wanted."""
    async with asyncio.timeout(timeout_s):
        while not condition(state := await asked.ask("state")):
            pass
    return state


def as_json(there: Child) -> dict[str, Any]:
    """The peer, as a consumer process takes it."""
    return peer_to_json(there.peer)
