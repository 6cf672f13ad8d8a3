"""The replicas of one pool: they come, they leave when their calls have ended, they return."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from redserve.routing import Member, merge_members
from redserve.telemetry.log import get_logger
from redserve_router.replicas.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = get_logger()

R = TypeVar("R", bound=Replica)


class Roster(Generic[R]):
    """Owns replicas and their connections. Create it inside the event loop.

    Args:
        make: Makes the replica of an address.
    """

    def __init__(self, make: Callable[[str], R]) -> None:
        self._make = make
        self._members: dict[str, R] = {}
        self._leaving: dict[str, R] = {}
        self._runs: dict[R, asyncio.Task[None]] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._started = False

    @property
    def members(self) -> tuple[R, ...]:
        """Those that may be chosen."""
        return tuple(self._members.values())

    @property
    def leaving(self) -> tuple[R, ...]:
        """Those that only finish their calls."""
        return tuple(self._leaving.values())

    def start(self) -> None:
        """Begin to connect."""
        self._started = True
        for replica in self._members.values():
            self._run(replica)

    async def stop(self) -> None:
        """Close every connection; calls that still run are cancelled."""
        tasks = [*self._farewells, *self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in (*self._members.values(), *self._leaving.values()):
            await replica.close()

    def set_members(self, members: Iterable[Member]) -> tuple[R, ...]:
        """From now on the pool is these.

        Whoever is not among them is not chosen any more, finishes its calls and is closed then. A
        stranger that takes no work stays one: there is nothing of ours that it could finish.

        Returns:
            Those that have left.
        """
        wanted = {member.address: member for member in merge_members(members)}
        left = tuple(r for address, r in self._members.items() if address not in wanted)
        for replica in left:
            self._let_go(replica)
        for member in wanted.values():
            if member.address in self._members:
                self._update(self._members[member.address], member)
            elif member.takes_work:
                self._welcome(member)
        return left

    def _update(self, replica: R, member: Member) -> None:
        if replica.takes_work != member.takes_work:
            replica.takes_work = member.takes_work
            state = "replica takes work again" if member.takes_work else "replica only finishes"
            log.info(state, pool=replica.pool, address=replica.address)

    def _welcome(self, member: Member) -> None:
        replica = self._leaving.pop(member.address, None)
        if replica is None:
            replica = self._make(member.address)
            if self._started:
                self._run(replica)
        replica.takes_work = True
        self._members[member.address] = replica
        log.info("replica appeared", pool=replica.pool, address=replica.address)

    def _let_go(self, replica: R) -> None:
        del self._members[replica.address]
        replica.takes_work = False
        self._leaving[replica.address] = replica
        log.info(
            "replica left",
            pool=replica.pool,
            address=replica.address,
            num_calls=replica.num_calls,
        )
        farewell = asyncio.create_task(self._see_off(replica))
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    async def _see_off(self, replica: R) -> None:
        """Close a replica when its last call has ended, unless it has returned by then."""
        await replica.until_idle()
        if self._leaving.get(replica.address) is not replica:
            return
        del self._leaving[replica.address]
        replica.closed = True  # before the next await: from here on nobody may begin a call
        run = self._runs.pop(replica, None)
        try:
            if run is not None:
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)
        finally:
            await replica.close()

    def _run(self, replica: R) -> None:
        self._runs[replica] = asyncio.create_task(replica.run())
