"""Measures how fast embeddings go from each encoder to each LLM replica, when both begin to serve.

In the background: no request waits for a check, and readiness does not depend on any. Bounds, for
pools of any size: one check at a time per LLM replica and per encoder (two would take more of
their room and measure each other), `MAX_RUNNING` at once in all, one begun every `MIN_INTERVAL_S`
(a check reads at most 32 MiB twice, which makes 0.7 GB/s in the whole cluster; 100 encoders and
100 LLM replicas take 17 minutes), `MAX_PAIRS` in memory. Every router checks by itself; an LLM
replica that is being checked for another one is busy.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from redserve.errors import Overloaded, RedServeError
from redserve.telemetry.log import get_logger
from redserve_router.pair_book import PairBook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from redserve_router.pair_book import PairReport
    from redserve_router.replicas.encoder import EncoderReplica
    from redserve_router.replicas.llm import LlmReplica
    from redserve_router.replicas.pools import ReplicaPools
    from redserve_router.replicas.replica import Replica

log = get_logger()

CHECK_TIMEOUT_S: Final = 10.0
MAX_RUNNING: Final = 8
MIN_INTERVAL_S: Final = 0.1
MAX_PAIRS: Final = 10_000
"""Pairs that are measured and told of, about 3 MB; the rest of larger pools never is."""
SETTLE_S: Final = 0.25
"""Changes are gathered for this long: a hundred replicas that start are few changes."""


class PairChecks:
    """One task per LLM replica. Create it inside the event loop; `start`, then `stop`.

    Args:
        pools: Whose replicas are checked; stopped after this.
    """

    def __init__(self, pools: ReplicaPools) -> None:
        self._pools = pools
        self._turns = _Turns()
        self._watches: dict[LlmReplica, _LlmWatch] = {}
        self._settling: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin to follow the pools."""
        self._pools.on_change(self._pools_changed)
        self._pools_changed()

    async def stop(self) -> None:
        """End all checks. Idempotent."""
        self._stopped = True
        if self._settling is not None:
            self._settling.cancel()
        watches, self._watches = self._watches, {}
        await asyncio.gather(*(watch.stop() for watch in watches.values()))

    def reports(self) -> Iterator[list[PairReport]]:
        """The pairs that serve now, one list per LLM replica, by address. Pause between lists."""
        for llm in sorted(self._pools.llms, key=lambda llm: llm.address):
            watch = self._watches.get(llm)
            if watch is not None:
                yield watch.report()

    def _pools_changed(self) -> None:
        if self._settling is None and not self._stopped:
            loop = asyncio.get_running_loop()
            self._settling = loop.call_later(SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._settling = None
        llms = set(self._pools.llms)
        for llm in self._watches.keys() - llms:
            self._watches.pop(llm).cancel()
        for llm in llms:
            if llm not in self._watches:
                self._watches[llm] = _LlmWatch(llm, self._partners, self._turns)
            self._watches[llm].wake()

    def _partners(self, llm: LlmReplica) -> list[EncoderReplica]:
        """Encoders whose embeddings go to `llm` now, so many that all pairs fit `MAX_PAIRS`."""
        if not _is_used(llm):
            return []
        most = MAX_PAIRS // max(1, len(self._pools.llms))
        partners = (
            encoder
            for encoder in self._pools.encoders
            if encoder.fingerprint == llm.fingerprint and _is_used(encoder)
        )
        return [encoder for encoder, _ in zip(partners, range(most), strict=False)]


class _Turns:
    """Lets few checks run at once, one per encoder, and begin one after the other.

    Attributes:
        taken: Addresses of encoders that are being checked, or are about to be.
        blocked: Called when one of them is free again, once.
    """

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.blocked: set[Callable[[], None]] = set()
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._next_start = 0.0

    @asynccontextmanager
    async def of(self, encoder: str) -> AsyncIterator[None]:
        """Around a check of an encoder that is not taken."""
        self.taken.add(encoder)
        try:
            async with self._slots:
                now = asyncio.get_running_loop().time()
                start = max(now, self._next_start)
                self._next_start = start + MIN_INTERVAL_S
                await asyncio.sleep(start - now)
                yield
        finally:
            self.taken.discard(encoder)
            blocked, self.blocked = self.blocked, set()
            for wake in blocked:
                wake()


class _LlmWatch:
    """Checks the pairs of one LLM replica, one after the other."""

    def __init__(
        self,
        llm: LlmReplica,
        partners: Callable[[LlmReplica], list[EncoderReplica]],
        turns: _Turns,
    ) -> None:
        self._llm = llm
        self._partners = partners
        self._turns = turns
        self._book = PairBook(llm.address)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_log_bug)

    def wake(self) -> None:
        """The pools have changed."""
        self._changed.set()

    def cancel(self) -> None:
        """Check no more."""
        self._task.cancel()

    async def stop(self) -> None:
        """Check no more, and wait for the end of a running check."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def report(self) -> list[PairReport]:
        """The pairs that serve now."""
        self._meet()
        return list(self._book.report())

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            self._meet()
            due = self._book.due(self._loop.time())
            free = [encoder for encoder in due if encoder not in self._turns.taken]
            if free:
                # By chance, so that LLM replicas do not all go for the same one.
                await self._take_turn(random.choice(free))
            elif due:
                self._turns.blocked.add(self.wake)
                await self._changed.wait()
            else:
                await self._wait_until(self._book.next_due_at())

    async def _take_turn(self, address: str) -> None:
        async with self._turns.of(address):
            encoder = self._meet().get(address)  # the turn may have come late
            if encoder is not None and address in self._book.due(self._loop.time()):
                await self._check(encoder)

    async def _wait_until(self, due_at: float | None) -> None:
        """Until the pools change, or then."""
        try:
            async with asyncio.timeout_at(due_at):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _check(self, encoder: EncoderReplica) -> None:
        connections = (encoder.connection, self._llm.connection)
        facts = {"encoder": encoder.address, "llm": self._llm.address}
        try:
            # Not in `use()`: a replica that leaves need not stay for this.
            speed = await self._llm.client.check_transport(encoder.address, CHECK_TIMEOUT_S)
        except Overloaded as error:
            self._book.busy(self._loop.time())
            log.debug("pair not checked", **facts, why=str(error))
        except RedServeError as error:
            if self._book.failed(encoder.address, connections, error.reason, self._loop.time()):
                log.warning("pair check failed", **facts, reason=error.reason, why=str(error))
        else:
            self._book.measured(encoder.address, connections, speed)
            log.info(
                "pair checked",
                **facts,
                transport=speed.transport,
                gb_per_s=round(speed.gb_per_s, 3),
                num_bytes=speed.num_bytes,
            )

    def _meet(self) -> dict[str, EncoderReplica]:
        """Bring the book up to date; the partners by address."""
        partners = {encoder.address: encoder for encoder in self._partners(self._llm)}
        self._book.set_partners(
            {a: (e.connection, self._llm.connection) for a, e in partners.items()},
            self._loop.time(),
        )
        return partners


def _is_used(replica: Replica) -> bool:
    return replica.serving and replica.takes_work and not replica.closed


def _log_bug(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("pair checks ended", exc_info=error)
