"""Events on the edges of what is stored: told again after a crash rather than never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve_operator.decide import event_kinds, reasons
from redserve_operator.decide.plan import Event
from redserve_operator.decide.reasons import POOL_CONDITIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redserve.cluster.facts import Manifest
    from redserve_operator.decide.event_kinds import EventKind


def conditions_by_type(status: Mapping[str, Any]) -> dict[str, Manifest]:
    """The conditions of a status."""
    return {one["type"]: one for one in status.get("conditions") or ()}


def edges(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Event, ...]:
    """What has happened between two statuses of a service."""
    return tuple(_edges(before, after))


def _edges(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Event]:
    was, now = conditions_by_type(before), conditions_by_type(after)
    yield from _accepted(was, now)
    yield from _reconcile_word(was, now)
    yield from _model(was, now)
    yield from _rollout(before, after, was, now)
    yield from _scaled(before, after, now)
    yield from _capacity(was, now)
    if _turned(was, now, "Degraded", "True"):
        yield _event(event_kinds.DEGRADED, _message(now, "Degraded"))
    if _status(was, "Degraded") == "True" and _status(now, "Degraded") == "False":
        yield _event(event_kinds.RECOVERED, _message(now, "Degraded"))
    if _turned(was, now, "Ready", "True"):
        yield _event(event_kinds.READY, _message(now, "Ready"))


def _accepted(was: Mapping[str, Manifest], now: Mapping[str, Manifest]) -> Iterator[Event]:
    if _status(now, "Accepted") == "False" and (
        _status(was, "Accepted") != "False"
        or _message(was, "Accepted") != _message(now, "Accepted")
    ):
        yield _event(event_kinds.REFUSED, _message(now, "Accepted"))
    amended = reasons.AMENDED.name
    if _reason(now, "Accepted") == amended != _reason(was, "Accepted"):
        yield _event(event_kinds.AMENDED, _message(now, "Accepted"))


def _reconcile_word(was: Mapping[str, Manifest], now: Mapping[str, Manifest]) -> Iterator[Event]:
    before, after = _reason(was, "Progressing"), _reason(now, "Progressing")
    if before == after:
        return
    if after == reasons.PAUSED.name:
        yield _event(event_kinds.PAUSED, "the operator changes nothing from here on")
    elif after == reasons.STOPPED.name:
        yield _event(event_kinds.STOPPED, "all pools are being scaled to zero")
    elif before in (reasons.PAUSED.name, reasons.STOPPED.name):
        yield _event(event_kinds.RESUMED, "the operator is at work again")


def _model(was: Mapping[str, Manifest], now: Mapping[str, Manifest]) -> Iterator[Event]:
    before, after = _reason(was, "ModelCached"), _reason(now, "ModelCached")
    if before != after and after == reasons.LOADED.name:
        yield _event(event_kinds.MODEL_CACHED, _message(now, "ModelCached"))
    if before != after and after == reasons.MODEL_LOAD_FAILED.name:
        yield _event(event_kinds.MODEL_FAILED, _message(now, "ModelCached"))


_BEFORE_A_ROLLOUT = (
    "",
    reasons.MODEL_NOT_CACHED.name,
    reasons.MODEL_LOAD_FAILED.name,
    reasons.OBJECT_REFUSED.name,
)


def _rollout(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    was: Mapping[str, Manifest],
    now: Mapping[str, Manifest],
) -> Iterator[Event]:
    update = after.get("updateRevision", "")
    is_new = before.get("updateRevision", "") != update
    waited = _reason(was, "Progressing") in _BEFORE_A_ROLLOUT
    rolls = _reason(now, "Progressing") in (
        reasons.ROLLOUT_IN_PROGRESS.name,
        reasons.INSUFFICIENT_CAPACITY.name,
    )
    if rolls and (is_new or waited):
        known = before.get("currentRevision", "")
        over = f" takes over from {known}" if known else " starts"
        over = " is gone back to" if known == update else over
        yield _event(event_kinds.ROLLOUT_STARTED, f"revision {update}{over}")
    if after.get("currentRevision", "") != before.get("currentRevision", ""):
        yield _event(event_kinds.ROLLOUT_COMPLETE, f"revision {update} serves alone")
    stuck = reasons.ROLLOUT_STUCK.name
    if _reason(now, "Progressing") == stuck != _reason(was, "Progressing"):
        yield _event(event_kinds.ROLLOUT_STUCK, _message(now, "Progressing"))


def _scaled(
    before: Mapping[str, Any], after: Mapping[str, Any], now: Mapping[str, Manifest]
) -> Iterator[Event]:
    if _reason(now, "Progressing") == reasons.STOPPED.name:
        return  # told as one event
    sizes = {pool["name"]: pool.get("desired", 0) for pool in before.get("pools") or ()}
    for pool in after.get("pools") or ():
        name, size = pool["name"], pool.get("desired", 0)
        if name in sizes and sizes[name] != size:
            yield _event(event_kinds.SCALED[name], f"from {sizes[name]} to {size} replicas")


def _capacity(was: Mapping[str, Manifest], now: Mapping[str, Manifest]) -> Iterator[Event]:
    short = reasons.INSUFFICIENT_CAPACITY.name
    for pool, kind in POOL_CONDITIONS.items():
        if _reason(now, kind) == short != _reason(was, kind):
            yield _event(event_kinds.CAPACITY, f"{pool}: {_message(now, kind)}")


def _turned(
    was: Mapping[str, Manifest], now: Mapping[str, Manifest], kind: str, status: str
) -> bool:
    return _status(now, kind) == status != _status(was, kind)


def _status(conditions: Mapping[str, Manifest], kind: str) -> str:
    return str(conditions.get(kind, {}).get("status", ""))


def _reason(conditions: Mapping[str, Manifest], kind: str) -> str:
    return str(conditions.get(kind, {}).get("reason", ""))


def _message(conditions: Mapping[str, Manifest], kind: str) -> str:
    return str(conditions.get(kind, {}).get("message", ""))


def _event(kind: EventKind, message: str) -> Event:
    return Event(kind.type, kind.name, message[:1024])
