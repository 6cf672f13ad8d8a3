"""How fast embeddings would come from an encoder: measured when nobody waits, for the router."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

from redserve.errors import DeadlineExceeded, InvalidArgument, Overloaded, RedServeError
from redserve.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.telemetry.metrics.llm import LLMMetrics
    from redserve.transport.pair_check import TransportCheck

log = get_logger()

LONGEST_CHECK_S: Final = 10.0
"""32 MiB are read twice in this time at 7 MB/s: a slower network cannot serve anybody."""
ANSWER_SHARE: Final = 0.9
"""Of a caller's time; the rest is for the answer, so that it learns what was wrong."""
GRACE_S: Final = 1.0
"""Time for the prober to end by itself at its limit, seconds."""
MAX_PEERS: Final = 256
"""Encoders whose speed is shown at a time, those that were measured last: labels are bounded."""
RETRY_AFTER_S: Final = 5.0


class Prober(Protocol):
    """The verb of `Puller` that is used here."""

    async def check(self, address: str, deadline_s: float) -> TransportCheck:
        """Read a probe from the producer at `address`, into room that nobody uses."""


class TransportChecks:
    """Measures one encoder at a time, and only while there is no request. The event loop owns it.

    Args:
        prober: Reads probes.
        transport: Data path in use; an attribute.
        is_busy: Whether room and link belong to somebody else now.
        metrics: Shows speeds and counts failures.
    """

    def __init__(
        self, prober: Prober, transport: str, is_busy: Callable[[], bool], metrics: LLMMetrics
    ) -> None:
        self.transport = transport
        self._prober = prober
        self._is_busy = is_busy
        self._gauge = metrics.transport_check
        self._failures = metrics.transport_check_failures
        self._peers: OrderedDict[str, None] = OrderedDict()
        self._running: asyncio.Task[TransportCheck] | None = None

    async def check(self, address: str, time_left_s: float | None) -> TransportCheck:
        """Read a probe from the encoder at `address`.

        Args:
            address: host:port.
            time_left_s: Until the caller gives up, seconds; None for never.

        Raises:
            InvalidArgument: `address` is none.
            Overloaded: There are requests, one came meanwhile, or another check runs.
            PeerLost, CorruptTransfer, DeadlineExceeded: The encoder cannot be read from.
        """
        _check_address(address)
        if self._running is not None:
            raise _later("another check runs")
        if self._is_busy():
            raise _later("there is work to do")
        limit_s = LONGEST_CHECK_S
        if time_left_s is not None:
            limit_s = min(limit_s, time_left_s * ANSWER_SHARE)
        try:
            measured = await self._probe(address, limit_s)
        except Overloaded:
            raise  # says nothing of the encoder
        except RedServeError as error:
            self._failed(address, error)
            raise
        self._show(address, measured)
        return measured

    def give_way(self) -> None:
        """A request comes: its embeddings need the room and the link."""
        if self._running is not None:
            self._running.cancel()

    async def _probe(self, address: str, limit_s: float) -> TransportCheck:
        task = asyncio.ensure_future(self._prober.check(address, limit_s))
        self._running = task
        try:
            async with asyncio.timeout(max(limit_s, 0.0) + GRACE_S):
                return await task
        except TimeoutError:
            raise DeadlineExceeded("the probe did not end in time") from None
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise _later("a request came while it was measured") from None
        finally:
            self._running = None

    def _show(self, address: str, measured: TransportCheck) -> None:
        self._gauge.labels(peer=address).set(measured.gb_per_s)
        self._peers[address] = None
        self._peers.move_to_end(address)
        if len(self._peers) > MAX_PEERS:
            self._hide(next(iter(self._peers)))
        log.debug(  # the router tells it, and every router asks
            "transport checked",
            encoder=address,
            transport=measured.transport,
            gb_per_s=round(measured.gb_per_s, 3),
            num_bytes=measured.num_bytes,
        )

    def _failed(self, address: str, error: RedServeError) -> None:
        self._failures.labels(reason=error.reason).inc()
        self._hide(address)  # its figure was true of another time
        log.debug("transport check failed", encoder=address, reason=error.reason, why=str(error))

    def _hide(self, address: str) -> None:
        if address in self._peers:
            del self._peers[address]
            self._gauge.remove(address)


def _later(why: str) -> Overloaded:
    return Overloaded(f"the transport is not measured now: {why}", retry_after_s=RETRY_AFTER_S)


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidArgument(
            f"{address!r} is not host:port of an encoder", field="encoder_address"
        )
