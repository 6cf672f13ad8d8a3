"""Handing an embedding over: hold it, tell the LLM replica, report to the router."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.errors import InternalError, RedServeError
from redserve.telemetry.log import get_logger
from redserve_encoder.bars import publish_bar
from redserve_encoder.delivery import Phase, Published
from redserve_encoder.holds import Holds
from redserve_encoder.still_wanted import StillWanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.telemetry.timeline import Bar
    from redserve.transport.lease_table import LeaseTable
    from redserve_encoder.cache import Embedding, EmbeddingCache
    from redserve_encoder.delivery import Delivery
    from redserve_encoder.llm_clients import Answer, LlmClients

log = get_logger()


class Publisher:
    """Publishes in tasks of its own: the next batch never waits for an LLM replica.

    Attributes:
        still_wanted: Asks for what was published and not fetched; whoever owns this runs it.
    """

    def __init__(
        self,
        lease_table: LeaseTable,
        cache: EmbeddingCache,
        clients: LlmClients,
        *,
        lane: str,
        now_ns: Callable[[], int],
    ) -> None:
        """Start idle.

        Args:
            lease_table: Gives out leases.
            cache: Owns the embeddings.
            clients: Reach the LLM replicas.
            lane: Name of this replica in timelines.
            now_ns: Nanoseconds since the Unix epoch.
        """
        self._holds = Holds(lease_table, cache, self._hold_ended)
        self.still_wanted = StillWanted(self._holds, clients)
        self._clients = clients
        self._lane = lane
        self._now_ns = now_ns
        self._tasks: dict[Delivery, asyncio.Task[None]] = {}

    @property
    def num_held(self) -> int:
        """Embeddings that are kept for somebody who was told of them, or is being told."""
        return len(self._holds)

    def expect(self, delivery: Delivery) -> None:
        """Something will be published for it: connect to its LLM replica meanwhile."""
        self._clients.expect(delivery.destination)

    def publish(
        self, delivery: Delivery, embedding: Embedding, bars: tuple[Bar, ...], *, cached: bool
    ) -> None:
        """Announce `embedding` for `delivery`; takes over one pin of the caller.

        Args:
            delivery: WAITING; it is PUBLISHING afterwards.
            embedding: Committed.
            bars: What was done for it so far.
            cached: Whether it came from the cache or joined.
        """
        delivery.move_to(Phase.PUBLISHING)
        key = self._holds.open(delivery, embedding)
        task = asyncio.create_task(self._announce(delivery, key, bars, cached=cached))
        self._tasks[delivery] = task
        task.add_done_callback(lambda _: self._tasks.pop(delivery, None))

    def drop(self, delivery: Delivery) -> None:
        """Stop publishing and holding it. Its phase is the caller's business."""
        task = self._tasks.get(delivery)
        if task is not None:
            task.cancel()
        self._holds.close(delivery)

    async def _announce(
        self, delivery: Delivery, key: str, bars: tuple[Bar, ...], *, cached: bool
    ) -> None:
        start_ns = self._now_ns()
        try:
            answer = await self._clients.announce(
                delivery.destination,
                delivery.tag,
                key,
                delivery.num_rows,
                delivery.deadline_s,
                delivery.origin.metadata,
            )
        except RedServeError as error:
            self._holds.close(delivery)
            delivery.fail(error)
        except Exception:
            log.exception("announcing an embedding failed", **delivery.origin.log_ids)
            self._holds.close(delivery)
            delivery.fail(InternalError("the LLM replica could not be told"))
        else:
            self._settle(delivery, answer, (*bars, self._bar(delivery, start_ns, answer)), cached)

    def _settle(
        self, delivery: Delivery, answer: Answer, bars: tuple[Bar, ...], cached: bool
    ) -> None:
        if not answer.accepted:
            # Late or doubled: the LLM replica knows better, and the router hears it from there.
            log.debug("embedding refused", why=answer.why, **delivery.origin.log_ids)
            self._holds.close(delivery)
        # It may have been pulled and released before the answer arrived here.
        delivery.move_to(Phase.HELD if delivery in self._holds else Phase.GONE)
        delivery.report(Published(delivery.tag, cached, bars))

    def _bar(self, delivery: Delivery, start_ns: int, answer: Answer) -> Bar:
        detail = "" if answer.accepted else f"refused: {answer.why}"
        return publish_bar(self._lane, delivery, start_ns, self._now_ns(), detail)

    def _hold_ended(self, delivery: Delivery) -> None:
        # While it is being announced, the end of that decides.
        if delivery.phase is Phase.HELD:
            delivery.move_to(Phase.GONE)
