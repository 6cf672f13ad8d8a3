"""Where a delivery goes when it comes in, and how it is dropped wherever it stands.

submit ─▶ embedding cached? ──▶ publisher
      ├─▶ content in flight? ─▶ joins it
      └─▶ lineup (queue)
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.errors import (
    DeadlineExceeded,
    InternalError,
    Overloaded,
    RedServeError,
    Unavailable,
)
from redserve_encoder.bars import cache_hit_bars
from redserve_encoder.delivery import Phase
from redserve_encoder.ledger import Ledger
from redserve_encoder.lineup import Lineup
from redserve_encoder.load import EncoderLoad, LoadWatch
from redserve_encoder.pictures import ContentMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redserve.scheduling.encoder_batcher import BatchLimit
    from redserve.telemetry.metrics.encoder import EncoderMetrics
    from redserve_encoder.cache import Embedding, EmbeddingCache
    from redserve_encoder.delivery import Delivery
    from redserve_encoder.flight import Flight
    from redserve_encoder.pictures import Pictures, PreparedPicture
    from redserve_encoder.publisher import Publisher
    from redserve_encoder.vision import Vision

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What one encoder consists of.

    Attributes:
        vision: Computes.
        pictures: Prepares.
        cache: Owns the embeddings.
        publisher: Hands them over.
        metrics: Counts.
        lane: Name of this replica in timelines.
        now_ns: Nanoseconds since the Unix epoch.
    """

    vision: Vision
    pictures: Pictures
    cache: EmbeddingCache
    publisher: Publisher
    metrics: EncoderMetrics
    lane: str
    now_ns: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the work.

    Attributes:
        batch: C, the rows of a batch, by the destination's demand.
        max_queued_rows: Rows that may wait before new work is refused.
    """

    batch: BatchLimit
    max_queued_rows: int


class Reception:
    """Takes work in and knows all of it; the engine takes it from the lineup."""

    def __init__(self, parts: Parts, limits: Limits) -> None:
        """Closed until `set_serving`."""
        self._parts = parts
        self._max_queued_rows = limits.max_queued_rows
        self._serving = False
        self._running_rows = 0
        self._anticipating: set[asyncio.Task[PreparedPicture]] = set()
        self.ledger = Ledger()
        self.lineup = Lineup(limits.batch, parts.pictures, self)
        self.load_watch = LoadWatch(self.load)
        self.work_changed = asyncio.Event()
        parts.cache.on_room(self.lineup_changed)
        parts.metrics.queue_oldest.set_function(self._oldest_wait_s)

    def set_serving(self, *, serving: bool) -> None:
        """Say whether new work is taken."""
        self._serving = serving
        self.changed()

    def set_running(self, num_rows: int) -> None:
        """Say how many rows are on the device."""
        self._running_rows = num_rows
        self.changed()

    def load(self) -> EncoderLoad:
        """How busy the encoder is."""
        return EncoderLoad(
            queued_rows=self.lineup.num_rows,
            running_rows=self._running_rows,
            num_items=self.ledger.num_waiting,
            cache_bytes=self._parts.cache.used_bytes,
            serving=self._serving,
        )

    def _oldest_wait_s(self) -> float:
        oldest_ns = self.lineup.oldest_ns
        return 0.0 if oldest_ns is None else max(0, self._parts.now_ns() - oldest_ns) / 1e9

    def changed(self) -> None:
        """Something that the load shows may have changed."""
        self._parts.metrics.queued_rows.set(self.lineup.num_rows)
        self._parts.metrics.cache_bytes.set(self._parts.cache.used_bytes)
        self.load_watch.changed()

    def check_intake(self, rows_by_content: Mapping[bytes, int]) -> None:
        """Refuse work that there is no place for.

        A queue that is empty takes any request: one that never fitted could only be retried for
        ever.

        Args:
            rows_by_content: Rows per content that a call asks for.

        Raises:
            Unavailable: The encoder is draining.
            Overloaded: Too many rows wait already.
        """
        if not self._serving:
            raise Unavailable("the encoder takes no new work now", retry_after_s=_RETRY_AFTER_S)
        queued = self.lineup.num_rows
        new = sum(rows for content, rows in rows_by_content.items() if not self.has(content))
        if queued and queued + new > self._max_queued_rows:
            raise Overloaded(
                f"{queued} rows wait already and {new} more would exceed {self._max_queued_rows}",
                retry_after_s=_RETRY_AFTER_S,
            )

    def has(self, content_hash: bytes) -> bool:
        """Whether the content is encoded, or about to be, so that its picture is not needed."""
        return content_hash in self._parts.cache or self.lineup.flight_of(content_hash) is not None

    def announce(self, delivery: Delivery) -> None:
        """A delivery is about to be submitted: from now on it can be dropped."""
        delivery.on_gone = self.ledger.close
        self.ledger.open(delivery)
        self._parts.publisher.expect(delivery)

    def submit(self, delivery: Delivery) -> None:
        """Take on an announced delivery; what becomes of it is told to `delivery.report`."""
        if delivery.phase is not Phase.WAITING:  # dropped in the meantime
            return
        try:
            self._place(delivery)
        except RedServeError as error:
            delivery.fail(error)
        self.lineup_changed()

    def drop(self, delivery: Delivery, error: RedServeError) -> None:
        """Forget a delivery wherever it stands; `error` is reported if nothing was yet."""
        if delivery.phase is Phase.WAITING:
            self.lineup.withdraw(delivery)
            delivery.fail(error)
        elif delivery.phase is Phase.PUBLISHING:
            self._parts.publisher.drop(delivery)
            delivery.fail(error)
        elif delivery.phase is Phase.HELD:
            self._parts.publisher.drop(delivery)
            delivery.move_to(Phase.GONE)
        self.lineup_changed()

    def drop_expired(self) -> None:
        """Drop what would be encoded next although its deadline has passed."""
        now_s = time.monotonic()
        for delivery in self.lineup.lined_up():
            if delivery.deadline_s <= now_s:
                self.drop(delivery, DeadlineExceeded("the deadline passed before the encode"))

    def anticipate(self, content_hash: bytes) -> None:
        """Begin to prepare a picture that will probably be asked for, if nothing else is to do.

        What goes wrong is told when it is asked for.
        """
        if self._running_rows or not self.lineup.is_empty or self.has(content_hash):
            return
        task = asyncio.create_task(self._parts.pictures.prepared(content_hash, None))
        self._anticipating.add(task)
        task.add_done_callback(self._anticipated)

    # What the lineup tells.

    def flight_prepared(self, flight: Flight) -> None:
        """See `lineup.Listener`."""
        num_rows = flight.actual_rows
        self._parts.cache.check_fits(self._parts.vision.info.embedding_bytes(num_rows))
        for delivery in [d for d in flight.deliveries if d.num_rows != num_rows]:
            self.drop(delivery, wrong_rows(delivery, num_rows))

    def flight_failed(self, flight: Flight, error: RedServeError) -> None:
        """See `lineup.Listener`."""
        for delivery in flight.deliveries:
            delivery.fail(error)

    def lineup_changed(self) -> None:
        """See `lineup.Listener`; also called when the pool may have room again."""
        self.lineup.fill()
        self.work_changed.set()
        self.changed()

    def _place(self, delivery: Delivery) -> None:
        parts, content_hash = self._parts, delivery.content_hash
        parts.cache.check_fits(parts.vision.info.embedding_bytes(delivery.num_rows))
        embedding = parts.cache.get(content_hash)
        if embedding is not None:
            self._publish_cached(delivery, embedding)
            return
        parts.metrics.cache_misses.inc()
        flight = self.lineup.flight_of(content_hash)
        if flight is not None:
            flight.join(delivery)
            parts.metrics.joined.inc()
            return
        delivery.data = delivery.data or parts.pictures.recall(content_hash)
        if delivery.data is None and not parts.pictures.has_pixels(content_hash):
            raise ContentMissingError("the picture is neither cached nor sent along")
        if not self.lineup.add(delivery):
            parts.metrics.joined.inc()

    def _publish_cached(self, delivery: Delivery, embedding: Embedding) -> None:
        parts = self._parts
        parts.metrics.cache_hits.inc()
        if embedding.num_rows != delivery.num_rows:
            parts.cache.unpin(embedding)
            raise wrong_rows(delivery, embedding.num_rows)
        bars = cache_hit_bars(parts.lane, delivery, parts.now_ns())
        parts.publisher.publish(delivery, embedding, bars, cached=True)

    def _anticipated(self, task: asyncio.Task[PreparedPicture]) -> None:
        self._anticipating.discard(task)
        if not task.cancelled():
            task.exception()


def wrong_rows(delivery: Delivery, num_rows: int) -> InternalError:
    """The prompt and the picture disagree: router and encoder serve different checkpoints."""
    return InternalError(
        f"the prompt reserves {delivery.num_rows} rows for item {delivery.tag.item_index}, "
        f"but its picture has {num_rows}"
    )
