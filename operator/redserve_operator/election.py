"""One operator writes: whoever holds the Lease.

    follower ──(free, expired or ours)──▶ leader ──(renewed every lease_renew_s)──▶ leader
                                            │
                          not renewed in time, or taken by another ──▶ lost

`lost` is final: the process ends, because writes of a late leader and a new one would mix. A
leader gives up on its own clock before others may take over; a clean stop hands over at once.
The Lease is compared with what this process saw before, never with another machine's clock.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from redserve.errors import ConfigError
from redserve.telemetry.log import get_logger
from redserve_operator.kube.errors import Conflict, KubeError, NotFound
from redserve_operator.kube.kinds import LEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.cluster.facts import Manifest
    from redserve_operator.kube.client import KubeClient

log = get_logger()

LEASE_NAME = "redserve-operator"
_TRIES = 3
SAFETY = 0.7
"""Share of the Lease's duration after which a leader that could not renew it stops writing: a call
that is under way then still has time to end before another operator leads."""


class Election:
    """Competes for one Lease.

    Args:
        client: Calls of the API server.
        namespace: Where the Lease lies.
        identity: This process among the others.
        duration_s: How long a Lease lasts that is not renewed, seconds.
        renew_s: Time between two renewals or looks, seconds.
        lease_name: Name of the Lease; operators that must not both write compete for the same.
        when_waiting: Called when another operator is seen to lead.
        clock: Monotonic seconds.

    Raises:
        ConfigError: It would be renewed too seldom to be kept.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        identity: str,
        *,
        duration_s: float,
        renew_s: float,
        lease_name: str = LEASE_NAME,
        when_waiting: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if renew_s >= SAFETY * duration_s:
            raise ConfigError(
                f"{renew_s:g} s is too seldom for a Lease of {duration_s:g} s; "
                f"choose less than {SAFETY * duration_s:g} s",
                field="REDSERVE_OPERATOR_LEASE_RENEW_S",
            )
        self._client = client
        self._namespace = namespace
        self._identity = identity
        self._duration_s = duration_s
        self._renew_s = renew_s
        self._name = lease_name
        self._when_waiting = when_waiting
        self._clock = clock
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = 0.0
        self._renewed_at: float | None = None
        self._told_holder = ""

    @property
    def leads(self) -> bool:
        """Whether this process may write now, by its own clock."""
        if self._renewed_at is None:
            return False
        return self._clock() - self._renewed_at < SAFETY * self._duration_s

    async def win(self) -> None:
        """Return once this process holds the Lease; waits for as long as another does."""
        while True:
            try:
                if await self.attempt():
                    return
            except KubeError as error:
                log.warning("lease not reached", why=error.message)
            await asyncio.sleep(self._renew_s)

    async def keep(self) -> None:
        """Renew until the Lease is lost, then return."""
        while True:
            await asyncio.sleep(self._renew_s if self.leads else 0.0)
            left = SAFETY * self._duration_s - (self._clock() - (self._renewed_at or 0.0))
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    if not await self.attempt():
                        return
            except KubeError as error:
                log.warning("lease not renewed", why=error.message)
            except TimeoutError:
                return

    async def release(self) -> None:
        """Let go, so that another leads at once; does nothing when this process does not lead."""
        if self._renewed_at is None:
            return
        self._renewed_at = None
        try:
            lease = await self._client.get(LEASE, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._identity:
                # One second: the API server wants a positive number.
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(lease)
        except KubeError as error:
            log.warning("lease not released", why=error.message)

    async def attempt(self) -> bool:
        """Take or renew the Lease if it may be; returns whether this process holds it.

        Raises:
            KubeError: The API server could not be asked; nothing is known then.
        """
        for _ in range(_TRIES):
            asked_at = self._clock()
            held = await self._try()
            if held is not None:
                # Counted from before the call: it may have been stored at any time since.
                self._renewed_at = asked_at if held else None
                return held
        raise Conflict("the Lease changes faster than it can be written", status=409)

    async def _try(self) -> bool | None:
        """One try; None when the Lease changed in between.

        A write of ours whose answer was lost does that too, and must not look like another's.
        """
        try:
            lease = await self._client.get(LEASE, self._namespace, self._name)
        except NotFound:
            lease = None
        try:
            if lease is None:
                await self._client.create(self._lease(None), self._identity)
            elif self._may_take(lease):
                await self._client.replace(self._lease(lease))
            else:
                return False
        except (Conflict, NotFound):
            return None
        return True

    def _may_take(self, lease: Manifest) -> bool:
        now = self._clock()
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        # Another's: free when nobody has touched it for as long as it lasts.
        version = (holder, str(lease["metadata"]["resourceVersion"]))
        if version != self._seen:
            self._seen, self._seen_at = version, now
        if holder != self._told_holder:
            self._told_holder = holder
            log.info("another operator leads", holder=holder)
            self._when_waiting()
        return now - self._seen_at >= float(spec.get("leaseDurationSeconds") or self._duration_s)

    def _lease(self, lease: Manifest | None) -> Manifest:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = dict((lease or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + bool(lease)
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration_s)),
            "renewTime": now,
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": (lease or {}).get("metadata") or metadata,
            "spec": spec,
        }
