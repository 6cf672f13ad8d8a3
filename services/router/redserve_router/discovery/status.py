"""What discovery knows of itself: for readiness, metrics and the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from redserve.telemetry.log import get_logger

if TYPE_CHECKING:
    from redserve.telemetry.metrics.discovery import DiscoveryMetrics
    from redserve_router.discovery.problem import Problem

log = get_logger()


class DiscoveryStatus:
    """Told by the follower; every change of state is logged once.

    Attributes:
        listed: Whether the replicas have ever been heard of.
        synced: Whether they are being followed now. If not, the last ones known are used.
    """

    def __init__(self, metrics: DiscoveryMetrics) -> None:
        self._metrics = metrics
        self.listed = False
        self.synced = False
        self._problem: Problem | None = None
        metrics.synced.set(0)

    @property
    def why_not_ready(self) -> str | None:
        """A sentence while no replica can be known yet; afterwards discovery is no hindrance."""
        if self.listed:
            return None
        why = self._problem or "the API server has not answered yet"
        return f"it is not known yet which replicas there are: {why}"

    @property
    def remark(self) -> str | None:
        """What to know when replicas are missing: that they are those of an earlier time."""
        if self.synced or self._problem is None:
            return None
        return f"new replicas are not heard of: {self._problem}"

    def note_listed(self) -> None:
        """All replicas are known as of now."""
        self.listed = True
        self.note_heard()

    def note_heard(self) -> None:
        """The API server has spoken."""
        self._metrics.last_sync.set(time.time())

    def note_synced(self) -> None:
        """From now on every change is heard of."""
        self.note_heard()
        if not self.synced:
            self.synced = True
            self._problem = None
            self._metrics.synced.set(1)
            log.info("discovery follows the API server")

    def note_problem(self, problem: Problem) -> None:
        """Nothing is heard any more."""
        self._metrics.problems.labels(problem.kind).inc()
        news = self.synced or self._problem is None or self._problem.kind != problem.kind
        self.synced = False
        self._problem = problem
        self._metrics.synced.set(0)
        write = log.warning if news else log.debug
        if self.listed:
            write("discovery lost the API server: the replicas known stay", why=str(problem))
        else:
            write("discovery waits for the API server: no replicas known", why=str(problem))
