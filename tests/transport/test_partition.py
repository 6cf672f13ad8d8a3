"""The network between consumer and producer drops everything, without a word to anybody."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from redserve.spec.ucx import ucx_environment
from tests.transport import networks
from tests.transport.links import MIB
from tests.transport.networks import joined
from tests.transport.processes import KINDS, SMALL, answer_until, as_json, child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.transport.networks import Network
    from tests.transport.processes import Child

WHY_NOT = networks.missing()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=f"NO PARTITION WAS TESTED: {WHY_NOT}"),
    pytest.mark.timeout(180),
    pytest.mark.parametrize("kind", KINDS),
]

LARGE = 64 * MIB
DEADLINE_S = 3.0
LATE_S = 5.0
"""How much later than its deadline a pull may end on a machine that is busy."""


@asynccontextmanager
async def pair(kind: str, here: Network, there: Network) -> AsyncIterator[tuple[Child, Child]]:
    """A consumer and a producer at the two ends of the cable, which know each other."""
    environment = {
        **ucx_environment("tcp", net_devices=networks.DEVICE),
        # A silent peer is given up after two seconds and not sixteen.
        "UCX_TCP_KEEPIDLE": "1s",
        "UCX_TCP_KEEPINTVL": "1s",
        "UCX_TCP_KEEPCNT": "1",
    }
    sizes = {"sizes": (LARGE, SMALL), "ttl_s": 30.0}
    offers = {"kind": kind, "host": there.address, "port": 0, **sizes}
    room = {"kind": kind, "pool_bytes": 2 * LARGE + 2 * SMALL}
    async with (
        child(
            "producer_process.py", offers, inside=there.inside, environment=environment
        ) as producer,
        child("consumer_process.py", room, inside=here.inside, environment=environment) as consumer,
    ):
        await pulls_again(consumer, producer)
        yield consumer, producer


async def pulls_again(consumer: Child, producer: Child) -> None:
    """Sooner or later; connections that broke may cost one pull each."""
    for _ in range(5):
        pulled = await consumer.ask("pull", peer=as_json(producer), size=SMALL, deadline_s=20)
        if pulled["error"] is None:
            break
    assert pulled["whole"], pulled


async def cut_in_the_middle(
    consumer: Child, producer: Child, here: Network, there: Network
) -> None:
    """Pulls over and over, until all of them fail by their deadline."""
    await consumer.ask("start", peer=as_json(producer), size=LARGE, deadline_s=DEADLINE_S)
    await here.cut()
    await there.cut()
    for failure in (await consumer.ask("failures"))["failures"]:
        assert failure["error"] in ("DeadlineExceeded", "PeerLost")
        assert failure["seconds"] < DEADLINE_S + LATE_S


async def test_a_partition_costs_the_deadline_and_heals(kind: str):
    async with joined() as (here, there), pair(kind, here, there) as (consumer, producer):
        await cut_in_the_middle(consumer, producer, here, there)
        await here.mend()
        await there.mend()
        await pulls_again(consumer, producer)
        await answer_until(consumer, lambda state: state["used"] == 0, 60)


async def test_a_partition_that_lasts_gives_the_memory_back(kind: str):
    """With the loss of the peer: until then, bytes might land."""
    async with joined() as (here, there), pair(kind, here, there) as (consumer, producer):
        for network in (here, there):
            await network.give_up_early()
        await cut_in_the_middle(consumer, producer, here, there)
        await answer_until(consumer, lambda state: state["used"] == 0, 60)
        await here.mend()
        await there.mend()
        assert producer.alive
        await pulls_again(consumer, producer)
