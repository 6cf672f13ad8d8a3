"""One Encode call: its items go in one by one, and outcomes come out as they fall."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.errors import Cancelled, InternalError, RedServeError
from redserve.telemetry.log import get_logger
from redserve.telemetry.tracing import NO_ORIGIN, Origin
from redserve_encoder.delivery import Delivery, Failed, Phase

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from redserve.telemetry.metrics.encoder import EncoderMetrics
    from redserve_encoder.delivery import GenerationTag, Outcome
    from redserve_encoder.pictures import Pictures
    from redserve_encoder.reception import Reception

log = get_logger()


@dataclass(frozen=True, slots=True)
class WantedItem:
    """One item of a call.

    Attributes:
        tag: Its name.
        content_hash: sha256 of the picture.
        data: The encoded picture; empty if it should be here.
        num_rows: Rows that the prompt reserves.
        origin: What it belongs to.
    """

    tag: GenerationTag
    content_hash: bytes
    data: bytes
    num_rows: int
    origin: Origin = NO_ORIGIN


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What all items of a call share.

    Attributes:
        destination: host:port of the LLM replica.
        destination_idle: Whether that replica has nothing else to do.
        received_ns: When the request came in, nanoseconds since the Unix epoch.
        submitted_ns: When the call came in, nanoseconds since the Unix epoch.
        deadline_s: When its time is up, seconds of the monotonic clock.
    """

    destination: str
    destination_idle: bool
    received_ns: int
    submitted_ns: int
    deadline_s: float


class Intake:
    """Turns calls into deliveries."""

    def __init__(self, reception: Reception, pictures: Pictures, metrics: EncoderMetrics) -> None:
        self._reception = reception
        self._pictures = pictures
        self._metrics = metrics

    async def encode(
        self, facts: CallFacts, items: Sequence[WantedItem]
    ) -> AsyncGenerator[Outcome, None]:
        """Outcomes of all items, each as soon as it is known.

        Closing the iterator drops what has not been published. What has been stays held until the
        LLM replica has it.

        Raises:
            Unavailable: The encoder is draining.
            Overloaded: Too many rows wait already.
        """
        self._reception.check_intake({item.content_hash: item.num_rows for item in items})
        outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

        def report(outcome: Outcome) -> None:
            if isinstance(outcome, Failed):
                self._metrics.errors.labels(reason=outcome.reason).inc()
            outcomes.put_nowait(outcome)

        deliveries = [
            Delivery(
                tag=item.tag,
                content_hash=item.content_hash,
                num_rows=item.num_rows,
                destination=facts.destination,
                destination_idle=facts.destination_idle,
                received_ns=facts.received_ns,
                submitted_ns=facts.submitted_ns,
                deadline_s=facts.deadline_s,
                report=report,
                origin=item.origin,
                data=item.data or None,
            )
            for item in items
        ]
        for delivery in deliveries:
            self._reception.announce(delivery)
        submitting = asyncio.create_task(self._submit_all(deliveries))
        try:
            for _ in deliveries:
                yield await outcomes.get()
        finally:
            submitting.cancel()
            for delivery in deliveries:
                if delivery.phase in (Phase.WAITING, Phase.PUBLISHING):
                    self._reception.drop(delivery, Cancelled("the caller has gone"))

    async def _submit_all(self, deliveries: Sequence[Delivery]) -> None:
        """In prompt order: the first picture is being prepared while later ones are checked."""
        for delivery in deliveries:
            try:
                # A picture whose rows are known is taken by its hash; what was sent is not read.
                if delivery.data is not None and not self._reception.has(delivery.content_hash):
                    await self._pictures.admit(delivery.content_hash, delivery.data)
                self._reception.submit(delivery)
            except RedServeError as error:
                self._reception.drop(delivery, error)
            except Exception:
                # Nobody awaits this task: what it let through would be silence until the deadline.
                log.exception("an item could not be taken in")
                self._reception.drop(delivery, InternalError("the image could not be taken in"))
