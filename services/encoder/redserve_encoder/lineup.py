"""From the queue to the device: at most one batch ahead, prepared in order.

    queue (EncoderBatcher) ──fill──▶ lined up: preparing, prepared ──take──▶ batch ──▶ end
      everything that waits             one embedding batch (C rows)       on the device

What is further back is not prepared yet: where cores are few, that would delay the first encode.
The device takes what is prepared and has room, in order: it never waits for the pixels of a later
item, and it never overtakes an earlier one.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Protocol, cast

from redserve.errors import InternalError, InvalidArgument, RedServeError
from redserve.scheduling.encoder_batcher import EncoderBatcher, EncodeTask
from redserve.telemetry.log import get_logger
from redserve_encoder.flight import Flight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redserve.scheduling.encoder_batcher import BatchLimit
    from redserve_encoder.delivery import Delivery
    from redserve_encoder.pictures import Pictures

log = get_logger()


class Listener(Protocol):
    """Who is told what happens in the lineup."""

    def flight_prepared(self, flight: Flight) -> None:
        """Its pixels are there. May raise a RedServeError to refuse it."""
        ...

    def flight_failed(self, flight: Flight, error: RedServeError) -> None:
        """It cannot be prepared or was refused; it has left the lineup."""
        ...

    def lineup_changed(self) -> None:
        """There may be something to take or to fill up."""
        ...


class Lineup:
    """Every delivery that waits for an encode. The event loop owns it."""

    def __init__(self, limit: BatchLimit, pictures: Pictures, listener: Listener) -> None:
        """Start empty.

        Args:
            limit: C, the embedding batch size, by the destination's demand.
            pictures: Prepares.
            listener: Called from tasks of the lineup, never from within its methods.
        """
        self._batcher = EncoderBatcher(limit.large)
        self._limit = limit
        self._pictures = pictures
        self._listener = listener
        self._lined_up: list[Flight] = []
        self._flights: dict[bytes, Flight] = {}
        self._queued: set[Delivery] = set()

    @property
    def num_rows(self) -> int:
        """Rows that wait, queued or lined up; each content counts once."""
        return self._batcher.queued_rows + self._lined_up_rows

    @property
    def oldest_ns(self) -> int | None:
        """When what has waited for its batch the longest came in; from any thread."""
        lined_up = (tuple(flight.deliveries) for flight in tuple(self._lined_up))
        waiting = itertools.chain(tuple(self._queued), *lined_up)
        return min((delivery.submitted_ns for delivery in waiting), default=None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._lined_up and not len(self._batcher)

    def flight_of(self, content_hash: bytes) -> Flight | None:
        """Work on this content that has left the queue and has not ended."""
        return self._flights.get(content_hash)

    def lined_up(self) -> Iterator[Delivery]:
        """Deliveries that the next batch may serve, in order."""
        for flight in list(self._lined_up):
            yield from list(flight.deliveries)

    def add(self, delivery: Delivery) -> bool:
        """Queue a delivery.

        Returns:
            False if its content is queued for another delivery already.

        Raises:
            InternalError: That one reserves another number of rows for it.
        """
        task = EncodeTask(
            tag=delivery,
            request_arrival=delivery.received_ns,
            item_index=delivery.tag.item_index,
            content_key=delivery.content_hash,
            num_rows=delivery.num_rows,
            cost=delivery.num_rows,
        )
        try:
            is_new = self._batcher.add(task)
        except InvalidArgument as error:
            raise InternalError(error.message) from error
        self._queued.add(delivery)
        return is_new

    def withdraw(self, delivery: Delivery) -> None:
        """Forget a delivery if it waits; work for which nobody waits any more is given up."""
        if delivery in self._queued:
            self._queued.remove(delivery)
            self._batcher.cancel(delivery)
            return
        flight = self._flights.get(delivery.content_hash)
        if flight is None or delivery not in flight.deliveries:
            return
        flight.deliveries.remove(delivery)
        if not flight.deliveries and flight in self._lined_up:
            self._lined_up.remove(flight)
            self.end(flight)

    def fill(self) -> None:
        """Line up what the next batch will hold, and begin to prepare it."""
        while (missing := self._batch_rows() - self._lined_up_rows) > 0:
            jobs = self._batcher.next_batch(missing)
            if not jobs:
                return
            for job in jobs:
                # From here on the flight knows who waits; the batcher is the queue and no more.
                tags = self._batcher.complete(job.task.content_key)
                self._line_up(cast("list[Delivery]", list(tags)))

    def take(self, reserve: Callable[[Flight], bool]) -> list[Flight]:
        """The next batch: what is prepared and has room, in order, up to C rows, at least one.

        The flights stay known until `end`, so that others may join them.

        Args:
            reserve: Asked once per flight that is otherwise ready; reserves its room if it can.
        """
        limit = self._batch_rows()
        batch: list[Flight] = []
        num_rows = 0
        for flight in self._lined_up:
            if batch and num_rows + flight.num_rows > limit:
                break
            if flight.picture is None or not reserve(flight):
                break
            batch.append(flight)
            num_rows += flight.num_rows
        del self._lined_up[: len(batch)]
        return batch

    def end(self, flight: Flight) -> None:
        """The flight is over: done, failed or given up. Nobody can join it any more."""
        if self._flights.get(flight.content_hash) is not flight:
            raise InternalError(f"{flight.content_hash.hex()} was not in flight")
        del self._flights[flight.content_hash]
        if flight.preparing is not None:
            flight.preparing.cancel()

    @property
    def _lined_up_rows(self) -> int:
        return sum(flight.num_rows for flight in self._lined_up)

    def _batch_rows(self) -> int:
        """C for the batch that begins with the first flight."""
        return self._limit.limit(not self._lined_up or self._lined_up[0].destination_idle)

    def _line_up(self, deliveries: list[Delivery]) -> None:
        first = deliveries[0]
        flight = Flight(first.content_hash, first.num_rows, deliveries)
        flight.joined.update(deliveries[1:])
        self._queued.difference_update(deliveries)
        self._lined_up.append(flight)
        self._flights[flight.content_hash] = flight
        flight.preparing = asyncio.create_task(self._prepare(flight))

    async def _prepare(self, flight: Flight) -> None:
        data = next((d.data for d in flight.deliveries if d.data is not None), None)
        try:
            flight.picture = await self._pictures.prepared(flight.content_hash, data)
            flight.preparing = None  # what follows may end the flight
            self._listener.flight_prepared(flight)
        except RedServeError as error:
            self._fail(flight, error)
        except Exception:
            log.exception("preparing a picture failed", content_hash=flight.content_hash.hex())
            self._fail(flight, InternalError("the picture could not be prepared"))
        self._listener.lineup_changed()

    def _fail(self, flight: Flight, error: RedServeError) -> None:
        flight.preparing = None
        if flight in self._lined_up:
            self._lined_up.remove(flight)
        self.end(flight)
        self._listener.flight_failed(flight, error)
