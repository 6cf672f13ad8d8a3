"""Both pools: which replicas serve, and which of them fit together."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from redserve.routing import Member, preferred
from redserve.telemetry.log import get_logger
from redserve_router.replicas.encoder import EncoderReplica
from redserve_router.replicas.llm import LlmReplica
from redserve_router.replicas.roster import Roster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redserve.telemetry.metrics.router import RouterMetrics
    from redserve_router.clients.llm import LlmInfo
    from redserve_router.replicas.replica import Replica

log = get_logger()
T = TypeVar("T")
R = TypeVar("R", EncoderReplica, LlmReplica)


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """One replica for `ListReplicas`; `load["fingerprint_mismatch"]` is 1 if it has no partner."""

    pool: str
    address: str
    serving: bool
    transport: str
    load: dict[str, float]


class Source(Protocol):
    """Where members come from, when it is not a fixed list."""

    @property
    def why_not_ready(self) -> str | None:
        """A sentence while members cannot be known yet."""

    @property
    def remark(self) -> str | None:
        """A sentence while members may be those of an earlier time."""


class ReplicaPools:
    """Owns every replica and its connection. Create it inside the event loop.

    Args:
        encoder_addresses: Encoders at first; `set_encoders` changes them.
        llm_addresses: LLM replicas at first; `set_llms` changes them.
        metrics: Shows who serves.
        encoders_required: Whether there must be an encoder for the router to be ready, also while
            none is known.

    Attributes:
        source: Has a say in `why_not_ready`.
    """

    def __init__(
        self,
        encoder_addresses: Iterable[str],
        llm_addresses: Iterable[str],
        metrics: RouterMetrics,
        *,
        encoders_required: bool = False,
    ) -> None:
        self.source: Source | None = None
        self._metrics = metrics
        self._encoders_required = encoders_required
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._mismatch_logged: set[int] = set()
        self._encoders = Roster(lambda address: EncoderReplica(address, self._notify))
        self._llms = Roster(lambda address: LlmReplica(address, self._notify))
        self.set_encoders(map(Member, encoder_addresses))
        self.set_llms(map(Member, llm_addresses))

    @property
    def encoders(self) -> tuple[EncoderReplica, ...]:
        """Every encoder that belongs to the pool."""
        return self._encoders.members

    @property
    def llms(self) -> tuple[LlmReplica, ...]:
        """Every LLM replica that belongs to the pool."""
        return self._llms.members

    def start(self) -> None:
        """Begin to connect."""
        self._encoders.start()
        self._llms.start()

    async def stop(self) -> None:
        """Close every connection; calls that still run are cancelled."""
        await self._encoders.stop()
        await self._llms.stop()

    def set_encoders(self, members: Iterable[Member]) -> None:
        """From now on these are the encoders; see `Roster.set_members`."""
        self._set_members(self._encoders, members)

    def set_llms(self, members: Iterable[Member]) -> None:
        """From now on these are the LLM replicas; see `Roster.set_members`."""
        self._set_members(self._llms, members)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a replica starts or stops serving."""
        self._listeners.append(listener)

    def serving_encoders(self, fingerprint: str) -> tuple[EncoderReplica, ...]:
        """Encoders that may be used with this checkpoint."""
        return _usable(e for e in self.encoders if e.fingerprint == fingerprint)

    def serving_llms(self, fingerprint: str) -> tuple[LlmReplica, ...]:
        """LLM replicas that may be used with this checkpoint."""
        return _usable(r for r in self.llms if r.fingerprint == fingerprint)

    def checkpoint(self, *, needs_encoder: bool) -> LlmInfo | None:
        """The checkpoint to use for a new request: the one that most LLM replicas serve.

        A request stays with its checkpoint: tokens of one must never meet rows of another.
        """
        served = Counter(r.fingerprint for r in _usable(self.llms))
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
        source = self.source
        if source is None:
            return self._who_is_missing()
        if source.why_not_ready is not None:
            return source.why_not_ready
        missing = self._who_is_missing()
        if missing is None or source.remark is None:
            return missing
        return f"{missing}; {source.remark}"

    def _who_is_missing(self) -> str | None:
        if not any(r.serving for r in self.llms):
            return f"no LLM replica serves (known: {_names(self.llms)})"
        needed = self._encoders_required or bool(self.encoders)
        if not needed or self.checkpoint(needs_encoder=True) is not None:
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
                serving=replica.serving and replica.takes_work,
                transport=replica.transport,
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

    def _set_members(self, roster: Roster[R], members: Iterable[Member]) -> None:
        for replica in roster.set_members(members):
            self._metrics.replica_serving.remove(replica.pool, replica.address)
        self._notify()

    def _notify(self) -> None:
        self._update_gauges()
        self._log_mismatches()
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            listener()

    def _log_mismatches(self) -> None:
        self._mismatch_logged &= {replica.connection for replica in self._all()}
        for replica in self._mismatched():
            if replica.connection not in self._mismatch_logged:
                self._mismatch_logged.add(replica.connection)
                log.warning(
                    "replica serves another checkpoint than the other pool: not used for images",
                    pool=replica.pool,
                    address=replica.address,
                    fingerprint=replica.fingerprint,
                )

    def _update_gauges(self) -> None:
        for replica in self._all():
            gauge = self._metrics.replica_serving.labels(replica.pool, replica.address)
            gauge.set(float(replica.serving and replica.takes_work))


def _usable(replicas: Iterable[R]) -> tuple[R, ...]:
    """Those that serve and should get new work."""
    return preferred((r for r in replicas if r.serving), lambda replica: replica.takes_work)


def _names(replicas: Iterable[Replica]) -> str:
    return ", ".join(replica.address for replica in replicas) or "none"
