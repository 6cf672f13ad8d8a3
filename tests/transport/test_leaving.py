"""Consumers that die or leave in the middle of their reads: no producer may suffer.

UCX would have it otherwise: over TCP, a process whose reader ends in the middle of a read may be
aborted by an assertion. That is why producers are read from by way of a process of its own.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.transport.links import MIB
from tests.transport.processes import KINDS, SMALL, answer_until, as_json, consumer, producer

if TYPE_CHECKING:
    from tests.transport.processes import Child

pytestmark = [pytest.mark.timeout(240), pytest.mark.parametrize("kind", KINDS)]

LARGE = 48 * MIB
"""Pulled over and over, two at once: whenever the consumer dies, it is in the middle."""
ROOM = 2 * LARGE
LEASE_S = 2.0
AT_ONCE = 2
RECOVERY_S = 30.0
"""Until another process is there to be read from; a second on a quiet machine."""


async def killed(doomed: Child) -> None:
    doomed.send(signal.SIGKILL)
    assert await doomed.wait() == -signal.SIGKILL


async def ended(doomed: Child, how: str) -> None:
    status = await doomed.end(how)
    # Whoever does not use `leave` while it reads by UCX may end by a signal of its own.
    assert status == 0 or how == "exit", how


async def serves(there: Child, bystander: Child) -> None:
    """The producer is as well as ever, and what it offers can be read.

    UCX may have ended the process that it is read from: then whoever asks finds the next one.
    """
    async with asyncio.timeout(RECOVERY_S):
        while True:
            peer = await there.ask("current")
            pulled = await bystander.ask("pull", peer=peer, size=SMALL, deadline_s=30)
            assert there.alive
            if pulled["error"] not in ("PeerLost", "PeerUnreachable"):
                break
    assert pulled["whole"], pulled


async def visit(guest: Child, there: Child) -> None:
    """Have `guest` be in the middle of its reads."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            peer = await there.ask("current")
            begun = await guest.ask("start", peer=peer, size=LARGE, deadline_s=60)
            if begun["reading"]:
                return


async def visitors(kind: str, there: Child, ways: tuple[str, ...]) -> None:
    """Consumers that come at once, read, and go in the middle of it, each in its own way."""
    async with AsyncExitStack() as stack:
        start = (stack.enter_async_context(consumer(kind, ROOM)) for _ in ways)
        guests = await asyncio.gather(*start)
        for guest in guests:
            await visit(guest, there)
        for guest, way in zip(guests, ways, strict=True):
            await (killed(guest) if way == "kill" else ended(guest, way))


async def settled(there: Child) -> tuple[int, int]:
    """Descriptors and memory of the producer when it has noticed that all readers are gone."""
    await answer_until(there, lambda state: state["leases"] == 0)
    return there.num_descriptors(), there.resident_bytes()


async def test_consumers_killed_in_the_middle_cost_the_producer_nothing(kind: str):
    async with (
        producer(kind, LARGE, SMALL, ttl_s=LEASE_S) as there,
        consumer(kind, SMALL) as bystander,
    ):
        await serves(there, bystander)
        await visitors(kind, there, ("kill",) * AT_ONCE)
        await serves(there, bystander)
        descriptors, resident = await settled(there)
        for _ in range(2):
            await visitors(kind, there, ("kill",) * AT_ONCE)
            await serves(there, bystander)
        now = await settled(there)
        assert now[0] <= descriptors
        assert now[1] - resident < 16 * MIB


async def test_consumers_killed_while_the_producer_was_stopped(kind: str):
    """Its replies cannot be sent when it wakes up: UCX takes that worst."""
    async with producer(kind, LARGE, SMALL) as there, consumer(kind, SMALL) as bystander:
        for _ in range(3):
            async with consumer(kind, ROOM) as guest:
                await visit(guest, there)
                there.send(signal.SIGSTOP)
                await killed(guest)
            there.send(signal.SIGCONT)
            await serves(there, bystander)


async def test_consumers_that_leave_in_the_middle_never_end_the_producer(kind: str):
    async with producer(kind, LARGE, SMALL) as there, consumer(kind, SMALL) as bystander:
        for _ in range(4 if kind == "tcp" else 1):
            await visitors(kind, there, ("close", "leave"))
            await serves(there, bystander)


async def test_consumers_that_just_end_in_the_middle_do_not_end_the_producer(kind: str):
    async with producer(kind, LARGE, SMALL) as there, consumer(kind, SMALL) as bystander:
        for _ in range(2):
            await visitors(kind, there, ("exit",) * AT_ONCE)
            await serves(there, bystander)


async def test_a_consumer_that_closes_in_the_middle_over_and_over(kind: str):
    async with (
        producer(kind, LARGE, SMALL, ttl_s=LEASE_S) as there,
        consumer(kind, ROOM) as guest,
        consumer(kind, SMALL) as bystander,
    ):
        closed = await guest.ask("close_often", peer=as_json(there), size=LARGE, times=20)
        assert closed["used"] == 0
        await serves(there, bystander)
        await settled(there)


async def test_a_consumer_can_leave_a_producer_that_hangs(kind: str):
    async with producer(kind, LARGE, SMALL) as there, consumer(kind, SMALL) as bystander:
        await serves(there, bystander)
        async with consumer(kind, ROOM) as guest:
            await visit(guest, there)
            there.send(signal.SIGSTOP)
            await ended(guest, "close")
        there.send(signal.SIGCONT)
        await serves(there, bystander)
