"""Whether one run of a container is started, ready and alive: its three probes together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tools.kubernetes.kubelet.probes import ProbePlan, Target, Verdict, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.kubernetes.async_api import JsonObject


class Health:
    """Asks a running container; cancel `watch` when it has ended.

    Args:
        spec: The container, as in the pod.
        target: Whom to ask.
        is_stopping: Whether it is being stopped.
        on_change: Called after every change of `started` and `ready`.
        on_failure: Called when it is to be restarted, with the grace period of the probe that
            failed, seconds; None leaves it to the pod.
        on_event: Called with type, reason and message of what a person may want to know.

    Attributes:
        started: The startup probe succeeded, or there is none.
        ready: It is started, and the readiness probe says so, or there is none.
    """

    def __init__(
        self,
        spec: JsonObject,
        target: Target,
        *,
        is_stopping: Callable[[], bool],
        on_change: Callable[[], None],
        on_failure: Callable[[float | None], None],
        on_event: Callable[[str, str, str], None],
    ) -> None:
        self._spec = spec
        self._target = target
        self._is_stopping = is_stopping
        self._on_change = on_change
        self._on_failure = on_failure
        self._on_event = on_event
        self.started = "startupProbe" not in spec
        self.ready = self.started and "readinessProbe" not in spec

    async def watch(self) -> None:
        """Ask for as long as there is something to ask."""
        if not self.started and not await self._is_started():
            return
        async with asyncio.TaskGroup() as group:
            if (probe := self._spec.get("readinessProbe")) is not None:
                group.create_task(self._watch_readiness(probe))
            if (probe := self._spec.get("livenessProbe")) is not None:
                group.create_task(self._watch_liveness(probe))

    async def _is_started(self) -> bool:
        probe = self._spec["startupProbe"]
        plan = ProbePlan.of(probe)
        verdict = Verdict(plan)
        await asyncio.sleep(plan.initial_delay_s)
        said = verdict.hear(well=await self._ask(probe, plan, "Startup"))
        while said is None:
            await asyncio.sleep(plan.period_s)
            said = verdict.hear(well=await self._ask(probe, plan, "Startup"))
        if not said:
            self._on_failure(plan.grace_s)
            return False
        self.started = True
        self.ready = "readinessProbe" not in self._spec
        self._on_change()
        return True

    async def _watch_readiness(self, probe: JsonObject) -> None:
        plan = ProbePlan.of(probe)
        verdict = Verdict(plan)
        await asyncio.sleep(plan.initial_delay_s)
        # Also while it is being stopped: a pod that drains serves, until it says otherwise.
        while True:
            answer = await self._ask(probe, plan, "Readiness")
            self.ready, before = bool(verdict.hear(well=answer)), self.ready
            if self.ready != before:
                self._on_change()
            await asyncio.sleep(plan.period_s)

    async def _watch_liveness(self, probe: JsonObject) -> None:
        plan = ProbePlan.of(probe)
        verdict = Verdict(plan)
        await asyncio.sleep(plan.initial_delay_s)
        # Whoever drains may be slow to answer, and is not to be killed for it.
        while not self._is_stopping():
            if verdict.hear(well=await self._ask(probe, plan, "Liveness")) is False:
                self._on_failure(plan.grace_s)
                return
            await asyncio.sleep(plan.period_s)

    async def _ask(self, probe: JsonObject, plan: ProbePlan, kind: str) -> bool:
        well, message = await ask(probe, self._target, plan.timeout_s)
        if not well:
            name = self._spec["name"]
            self._on_event("Warning", "Unhealthy", f"{kind} probe of {name} failed: {message}")
        return well
