"""Both pools: which replicas serve, and which of them fit together."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from redserve.telemetry.log import get_logger
from redserve_router.replicas.encoder import EncoderReplica
from redserve_router.replicas.llm import LlmReplica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redserve.telemetry.metrics import RouterMetrics
    from redserve_router.clients.llm import LlmInfo
    from redserve_router.replicas.replica import Replica

log = get_logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """One replica for `ListReplicas`; `load["fingerprint_mismatch"]` is 1 if it has no partner."""

    pool: str
    address: str
    serving: bool
    load: dict[str, float]


class ReplicaPools:
    """Owns every replica and its connection. Create it inside the event loop."""

    def __init__(
        self,
        encoder_addresses: Iterable[str],
        llm_addresses: Iterable[str],
        metrics: RouterMetrics,
    ) -> None:
        self.encoders = tuple(
            EncoderReplica(address, self._notify) for address in dict.fromkeys(encoder_addresses)
        )
        self.llms = tuple(
            LlmReplica(address, self._notify) for address in dict.fromkeys(llm_addresses)
        )
        self._metrics = metrics
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._mismatch_logged: set[tuple[str, int]] = set()
        self._update_gauges()

    def start(self) -> None:
        """Begin to connect."""
        self._tasks = [asyncio.create_task(replica.run()) for replica in self._all()]

    async def stop(self) -> None:
        """Close every connection; calls that still run are cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a replica starts or stops serving."""
        self._listeners.append(listener)

    def serving_encoders(self, fingerprint: str) -> tuple[EncoderReplica, ...]:
        """Encoders that may be used with this checkpoint."""
        return tuple(e for e in self.encoders if e.serving and e.fingerprint == fingerprint)

    def serving_llms(self, fingerprint: str) -> tuple[LlmReplica, ...]:
        """LLM replicas that serve this checkpoint."""
        return tuple(r for r in self.llms if r.serving and r.fingerprint == fingerprint)

    def checkpoint(self, *, needs_encoder: bool) -> LlmInfo | None:
        """The checkpoint to use for a new request: the one that most LLM replicas serve.

        A request stays with its checkpoint: tokens of one must never meet rows of another.
        """
        served = Counter(r.fingerprint for r in self.llms if r.serving)
        if needs_encoder:
            encoded = {e.fingerprint for e in self.encoders if e.serving}
            served = Counter({name: n for name, n in served.items() if name in encoded})
        best = max(served, key=lambda name: (served[name], name), default=None)
        if best is None:
            return None
        return self.serving_llms(best)[0].info

    @property
    def why_not_ready(self) -> str | None:
        """A sentence for people, or None when requests can be answered."""
        if not any(r.serving for r in self.llms):
            return f"no LLM replica serves (known: {_names(self.llms)})"
        if not self.encoders or self.checkpoint(needs_encoder=True) is not None:
            return None
        if not any(e.serving for e in self.encoders):
            return f"no encoder serves (known: {_names(self.encoders)})"
        return "encoders and LLM replicas serve different checkpoints (fingerprints differ)"

    async def find(self, look: Callable[[], T | None], grace_s: float) -> T | None:
        """What `look` finds, looked for again at every change, for `grace_s` seconds at most."""
        found = look()
        if found is not None or grace_s <= 0:
            return found
        try:
            async with asyncio.timeout(grace_s):
                while found is None:
                    await self._changed.wait()
                    found = look()
        except TimeoutError:
            return None
        return found

    def report(self) -> tuple[ReplicaReport, ...]:
        """All replicas, by pool, then address."""
        lonely = {(replica.pool, replica.address) for replica in self._mismatched()}
        reports = [
            ReplicaReport(
                pool=replica.pool,
                address=replica.address,
                serving=replica.serving,
                load={
                    **replica.load_figures(),
                    "fingerprint_mismatch": float((replica.pool, replica.address) in lonely),
                },
            )
            for replica in self._all()
        ]
        return tuple(sorted(reports, key=lambda report: (report.pool, report.address)))

    def _all(self) -> tuple[Replica, ...]:
        return (*self.encoders, *self.llms)

    def _mismatched(self) -> list[Replica]:
        """Serving replicas for which the other pool has nobody with the same checkpoint."""
        encoded = {e.fingerprint for e in self.encoders if e.serving}
        served = {r.fingerprint for r in self.llms if r.serving}
        if not encoded or not served:
            return []
        return [
            replica
            for replica in self._all()
            if replica.serving
            and replica.fingerprint not in (served if replica.pool == "encoder" else encoded)
        ]

    def _notify(self) -> None:
        self._update_gauges()
        self._log_mismatches()
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            listener()

    def _log_mismatches(self) -> None:
        for replica in self._mismatched():
            key = (f"{replica.pool} {replica.address}", replica.connection)
            if key not in self._mismatch_logged:
                self._mismatch_logged.add(key)
                log.warning(
                    "replica serves another checkpoint than the other pool: not used for images",
                    pool=replica.pool,
                    address=replica.address,
                    fingerprint=replica.fingerprint,
                )

    def _update_gauges(self) -> None:
        for replica in self._all():
            gauge = self._metrics.replica_serving.labels(replica.pool, replica.address)
            gauge.set(float(replica.serving))


def _names(replicas: Iterable[Replica]) -> str:
    return ", ".join(replica.address for replica in replicas) or "none"
