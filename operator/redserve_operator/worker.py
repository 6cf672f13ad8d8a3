"""One look at a service: observe, decide, act, tell."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from redserve.cluster import labels
from redserve.telemetry.log import get_logger
from redserve_operator.decide.objects import key_of
from redserve_operator.decide.observed import Probed
from redserve_operator.decide.plan import ApplyStatus, Delete, Patch
from redserve_operator.decide.refusals import waits_for
from redserve_operator.kube.backoff import Backoff
from redserve_operator.kube.errors import KubeError, NamespaceEnds, Unauthorized
from redserve_operator.trials import Trials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redserve.cluster.facts import Manifest
    from redserve_operator.acting import Hands
    from redserve_operator.decide.observed import ObjectKey, Observed
    from redserve_operator.decide.plan import Action, Plan
    from redserve_operator.keys import ServiceKey
    from redserve_operator.store.cache import Store

    Decide = Callable[[ServiceKey, Observed, datetime], Plan]

log = get_logger()

REFUSED_AGAIN: Final = Backoff(first_s=2.0, longest_s=30.0, jitter=0.0)
"""When an object that was refused is tried again: what refused it may go at any time, unseen."""
MOST_FAILED_KINDS: Final = 2
"""When objects of more kinds cannot be written, the API server is in trouble and not an object:
the look ends, to be tried again later."""
ENDING_AGAIN_S: Final = 30.0
"""Should a namespace outlive its end after all."""

Result = Literal["unchanged", "acted", "refused", "gone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a look ended.

    Attributes:
        result: Nothing was to be done, something was done, the API server refused an object, or
            there is no such service any more.
        again_after_s: Look again after this time; None: when something changes.
    """

    result: Result
    again_after_s: float | None = None


@dataclass(slots=True)
class _Done:
    """What came of a plan's actions.

    Attributes:
        refused: Why an object is not taken as it is, or not from us.
        failed: Objects that the API server could not write, such as those of a webhook that is
            away.
        is_moving: Whether anything was done.
    """

    refused: dict[ObjectKey, str] = field(default_factory=dict)
    failed: dict[ObjectKey, KubeError] = field(default_factory=dict)
    is_moving: bool = False

    @property
    def failed_kinds(self) -> set[str]:
        return {key.kind for key in self.failed}


class Worker:
    """Looks at services; state that it keeps may be lost at any time.

    Args:
        store: The cache.
        hands: Carry out what was decided.
        decide: The pure decision.
        debounce_s: Time from acting to looking at what came of it, and the shortest between two
            looks that the service itself asks for, seconds.
        resync_s: Longest time between two looks at a service, seconds.
    """

    def __init__(
        self, store: Store, hands: Hands, decide: Decide, *, debounce_s: float, resync_s: float
    ) -> None:
        self._store = store
        self._hands = hands
        self._decide = decide
        self._debounce_s = debounce_s
        self._resync_s = resync_s
        self._trials = Trials()
        self._num_refused: dict[ServiceKey, int] = {}
        """Looks in a row that ended with a refused object."""
        self._rejected: dict[ServiceKey, dict[ObjectKey, str]] = {}
        self._failing: dict[ServiceKey, frozenset[ObjectKey]] = {}
        """What could not be written in the last look."""

    async def look(self, service: ServiceKey) -> Outcome:
        """Bring the cluster one step nearer to what the service wants.

        Raises:
            KubeError: The API server did not answer as it should; to be tried again. Unless there
                was no answer at all, whatever else was to be done has been done and told.
        """
        observed = self._observe(service)
        if observed is None:
            self._trials.forget(service)
            self._num_refused.pop(service, None)
            self._rejected.pop(service, None)
            self._failing.pop(service, None)
            return Outcome("gone")
        if observed.resource["metadata"].get("deletionTimestamp"):
            # Whoever deletes it in the foreground waits for the children: none must be made.
            return Outcome("unchanged")
        try:
            return await self._step(service, observed)
        except NamespaceEnds:
            return Outcome("unchanged", ENDING_AGAIN_S)

    async def _step(self, service: ServiceKey, observed: Observed) -> Outcome:
        plan = self._decide(service, observed, datetime.now(UTC))
        if observed.probed is None and not plan.probe:
            # It has run out and nobody asks (paused, say): it must not ask for a look again.
            self._trials.forget(service)
        if plan.probe:
            await self._probe(service, plan)
            again = self._decide_again(service)
            if again is None:
                return Outcome("gone")
            plan = again
        return await self._carry_out(service, plan)

    async def _carry_out(self, service: ServiceKey, plan: Plan) -> Outcome:
        started = time.monotonic()
        done = await self._act(service, plan.actions)
        if done.refused or done.failed:
            told = self._decide_again(service)
            if told is None:
                return Outcome("gone")
            await self._tell(service, told)
            for error in done.failed.values():
                raise error  # the first, for the back-off; the rest has been done and told
            return Outcome(
                "refused", self._debounce_s if done.is_moving else self._patience_s(service)
            )
        self._num_refused.pop(service, None)
        wrote_status = await self._tell(service, plan)
        # Spread, so that services that came up together are not looked at together for ever.
        resync = self._resync_s * (0.9 + 0.1 * random.random())
        wishes = (resync, plan.requeue_after_s, self._trials.again_after_s(service))
        again = max(self._debounce_s, min(wish for wish in wishes if wish is not None))
        if not plan.actions and not wrote_status:
            return Outcome("unchanged", again)
        log.info(
            "reconciled",
            service=str(service),
            actions=[_shown(action) for action in plan.actions],
            wrote_status=wrote_status,
            events=[event.reason for event in plan.events],
            seconds=round(time.monotonic() - started, 3),
        )
        # What was just done may be all that the next step waits for; no notice of it will come,
        # because the cache knows it already.
        return Outcome("acted", self._debounce_s if plan.actions else again)

    async def _act(self, service: ServiceKey, actions: Sequence[Action]) -> _Done:
        """Do what can be done, and remember what was not.

        Raises:
            KubeError: Nothing more can be done now, whatever the object.
        """
        done = _Done()
        for action in actions:
            if waits_for(action, done.refused.keys() | done.failed.keys()):
                continue
            try:
                key, message = await self._hands.carry_out(service, action)
            except KubeError as error:
                key = action.key if isinstance(action, Delete) else key_of(action.manifest)
                done.failed[key] = error
                if not _is_about_an_object(error) or len(done.failed_kinds) > MOST_FAILED_KINDS:
                    raise
                log.warning("object failed", service=str(service), why=error.message, **_log(key))
                continue
            if message is None:
                done.is_moving = True
                continue
            log.warning("object refused", service=str(service), why=message, **_log(key))
            done.refused[key] = message
            self._rejected.setdefault(service, {})[key] = message
        self._remember(service, done)
        return done

    def _remember(self, service: ServiceKey, done: _Done) -> None:
        # Everything else that is wanted has been accepted, or is not wanted any more.
        before = self._failing.pop(service, frozenset())
        self._rejected.pop(service, None)
        # A failure that the next look mends is not worth a word in the status.
        lasting = {key: error.message for key, error in done.failed.items() if key in before}
        if done.failed:
            self._failing[service] = frozenset(done.failed)
        if done.refused or lasting:
            self._rejected[service] = {**done.refused, **lasting}

    async def _tell(self, service: ServiceKey, plan: Plan) -> bool:
        resource = self._store.resource(service)
        if resource is None:
            return False
        if plan.status is not None:
            await self._hands.write_status(resource, plan.status)
        for event in plan.events:
            await self._hands.tell(resource, event)
        return plan.status is not None

    async def _probe(self, service: ServiceKey, plan: Plan) -> None:
        refused: dict[str, str] = {}
        for pod in plan.probe:
            message = await self._hands.try_pod(pod)
            if message is not None:
                refused[_pool_of(pod)] = message
        self._trials.note(service, Probed(plan.probe_revision, refused))

    def _decide_again(self, service: ServiceKey) -> Plan | None:
        observed = self._observe(service)
        if observed is None:
            return None
        return self._decide(service, observed, datetime.now(UTC))

    def _observe(self, service: ServiceKey) -> Observed | None:
        rejected: Mapping[ObjectKey, str] = dict(self._rejected.get(service, {}))
        return self._store.observed(service, self._trials.known(service), rejected)

    def _patience_s(self, service: ServiceKey) -> float:
        """How long a service waits that has just been refused an object."""
        number = self._num_refused[service] = self._num_refused.get(service, 0) + 1
        return REFUSED_AGAIN.wait_s(number, 0.0)


def _is_about_an_object(error: KubeError) -> bool:
    """Whether other writes may still succeed: there was an answer, and not that all is too much."""
    return error.status not in (0, 429) and not isinstance(error, (NamespaceEnds, Unauthorized))


def _log(key: ObjectKey) -> dict[str, str]:
    return {"kind": key.kind, "name": key.name}


def _shown(action: Action) -> str:
    if isinstance(action, Delete):
        return f"delete {action.key.kind} {action.key.name} ({action.why})"
    manifest = action.manifest
    verb = {ApplyStatus: "status of", Patch: "patch"}.get(type(action), "apply")
    return f"{verb} {manifest['kind']} {manifest['metadata']['name']} ({action.why})"


def _pool_of(pod: Manifest) -> str:
    marks = pod["metadata"]["labels"]
    return str(marks.get(labels.POOL) or marks[labels.COMPONENT])  # the loader is of no pool
