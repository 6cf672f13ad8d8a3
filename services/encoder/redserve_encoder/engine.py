"""The loop of an encoder: next batch, encode, publish.

One batch is on the device at a time. While it runs, the pictures of the following one are
prepared (`lineup`), and what is done is announced to the LLM replicas (`publisher`): neither ever
stops the loop. It waits for two things only: work, and room in the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.errors import InternalError, RedServeError, Unavailable
from redserve.telemetry.log import get_logger
from redserve_encoder.bars import flight_bars
from redserve_encoder.reception import wrong_rows
from redserve_encoder.vision import DeviceLostError

if TYPE_CHECKING:
    from redserve_encoder.flight import Flight
    from redserve_encoder.reception import Parts, Reception

log = get_logger()


class Engine:
    """Runs on the event loop; the model computes in a thread of its own."""

    def __init__(self, parts: Parts, reception: Reception) -> None:
        """Start idle; `run` does the work."""
        self._parts = parts
        self._reception = reception
        self._lineup = reception.lineup

    async def run(self) -> None:
        """Encode until cancelled.

        Raises:
            DeviceLostError: The process must be replaced.
        """
        while True:
            batch = await self._next_batch()
            encoded = await self._encode(batch)
            self._publish(encoded)

    async def _next_batch(self) -> list[Flight]:
        while True:
            self._reception.work_changed.clear()
            self._lineup.fill()
            self._reception.drop_expired()
            batch = self._lineup.take(self._reserve)
            if batch:
                self._lineup.fill()  # its pictures are prepared while this batch is encoded
                return batch
            await self._reception.work_changed.wait()

    async def _encode(self, batch: list[Flight]) -> list[Flight]:
        """Encode into the pool; returns the flights whose rows are there, the others have failed.

        A batch that fails is tried again picture by picture, so that a bad one fails alone.
        """
        try:
            counts = await self._forward(batch)
        except DeviceLostError:
            for flight in batch:
                self._give_up(flight, Unavailable("the encoder lost its device"))
            raise
        except Exception:
            log.exception("encoding failed", num_items=len(batch))
            if len(batch) > 1:
                return [done for flight in batch for done in await self._encode([flight])]
            self._give_up(batch[0], InternalError("the model failed on this picture"))
            return []
        encoded = []
        for flight, num_rows in zip(batch, counts, strict=True):
            if num_rows == flight.actual_rows:
                encoded.append(flight)
            else:
                made = f"the model made {num_rows} rows instead of {flight.actual_rows}"
                self._give_up(flight, InternalError(made))
        return encoded

    def _publish(self, encoded: list[Flight]) -> None:
        parts = self._parts
        for flight in encoded:
            embedding = flight.reserved
            self._lineup.end(flight)
            parts.cache.commit(embedding)
            parts.pictures.forget_pixels(flight.content_hash)
            for delivery in flight.deliveries:
                if delivery.num_rows != embedding.num_rows:  # it joined with another number
                    delivery.fail(wrong_rows(delivery, embedding.num_rows))
                    continue
                parts.cache.pin(embedding)
                bars = flight_bars(parts.lane, delivery, flight)
                joined = delivery in flight.joined
                parts.publisher.publish(delivery, embedding, bars, cached=joined)
            parts.cache.unpin(embedding)
        self._reception.changed()

    async def _forward(self, batch: list[Flight]) -> list[int]:
        """Run the model; returns the rows that it made per flight, and stamps the flights."""
        metrics, now_ns = self._parts.metrics, self._parts.now_ns
        num_rows = sum(flight.actual_rows for flight in batch)
        start_ns = now_ns()
        for flight in batch:
            flight.encode_start_ns = start_ns
            for delivery in flight.deliveries:
                metrics.queue.observe(max(0, start_ns - delivery.submitted_ns) / 1e9)
        self._reception.set_running(num_rows)
        try:
            counts = await self._parts.vision.encode(
                [flight.pixels for flight in batch],
                [flight.reserved.region for flight in batch],
            )
        finally:
            end_ns = now_ns()
            self._reception.set_running(0)
        for flight in batch:
            flight.encode_end_ns = end_ns
        metrics.encode.observe((end_ns - start_ns) / 1e9)
        metrics.batch_images.observe(len(batch))
        metrics.batch_rows.observe(num_rows)
        metrics.images.inc(len(batch))
        return counts

    def _reserve(self, flight: Flight) -> bool:
        """Take room in the pool; False while what others hold fills it."""
        num_rows = flight.actual_rows
        num_bytes = self._parts.vision.info.embedding_bytes(num_rows)
        flight.embedding = self._parts.cache.try_reserve(flight.content_hash, num_rows, num_bytes)
        return flight.embedding is not None

    def _give_up(self, flight: Flight, error: RedServeError) -> None:
        """End a flight that was on the device without a result."""
        self._lineup.end(flight)
        self._parts.cache.unpin(flight.reserved)
        for delivery in flight.deliveries:
            delivery.fail(error)
