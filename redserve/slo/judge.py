"""Whether a request kept a promise.

    indicator            event            good                    bad
    Availability         request          COMPLETE                FAILED; EXPIRED if it had time
    TimeToFirstToken     request          token in time           late; none and not excused
    TimePerOutputToken   2 tokens or more mean in time            late; FAILED; stalled
    RequestLatency       request          COMPLETE in time        late; not complete, not excused
    EncodeLatency        dispatched item  published in time, cached   late; failed; not excused

A first token and a published item are judged when they leave (`judge_first_token`, `judge_item`),
all else when the request ends: only then is it known whether a wait is excused. What was judged
stays, however the request ends.

Excused, and no event at all: what had not yet waited longer than the threshold when the client
left, and what the client's own deadline ended before the threshold. REFUSED is never an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.slo.ended import End, ItemEnd
from redserve.slo.tally import Tally

if TYPE_CHECKING:
    from redserve.slo.ended import Ended, EndedItem
    from redserve.slo.objective import Objective

GOOD: Final = Tally(good=1)
BAD: Final = Tally(bad=1)
NO_EVENT: Final = Tally()


def judge(objective: Objective, ended: Ended) -> Tally:
    """All events of one request that has ended; one at most, but for EncodeLatency."""
    if ended.end is End.REFUSED:
        return NO_EVENT
    if objective.indicator == "Availability":
        return _available(ended, objective.fair_deadline_s)
    threshold_s = objective.threshold_s
    if threshold_s is None:
        raise ValueError(f"{objective.indicator} needs a threshold")
    match objective.indicator:
        case "TimeToFirstToken":
            return _reached(ended, ended.first_token_s, threshold_s)
        case "RequestLatency":
            reached_s = ended.duration_s if ended.end is End.COMPLETE else None
            return _reached(ended, reached_s, threshold_s)
        case "TimePerOutputToken":
            return _paced(ended, threshold_s)
    return sum((_encoded(ended, item, threshold_s) for item in ended.items), NO_EVENT)


def judge_first_token(objective: Objective, waited_s: float) -> Tally:
    """The event of a first token that leaves `waited_s` after its request came in."""
    if objective.indicator != "TimeToFirstToken" or objective.threshold_s is None:
        return NO_EVENT
    return _in_time(waited_s, objective.threshold_s)


def judge_item(objective: Objective, item: EndedItem) -> Tally:
    """The event of an item that is published, or answered from a cache."""
    if objective.indicator != "EncodeLatency" or objective.threshold_s is None:
        return NO_EVENT
    return GOOD if item.end is ItemEnd.CACHED else _in_time(item.waited_s, objective.threshold_s)


def _in_time(waited_s: float, threshold_s: float) -> Tally:
    return GOOD if waited_s <= threshold_s else BAD


def _available(ended: Ended, fair_deadline_s: float) -> Tally:
    match ended.end:
        case End.COMPLETE:
            return GOOD
        case End.LEFT:
            return NO_EVENT
        case End.EXPIRED:
            return BAD if _had_time(ended, fair_deadline_s) else NO_EVENT
    return BAD


def _reached(ended: Ended, reached_s: float | None, threshold_s: float) -> Tally:
    """Something that should have happened by the threshold, and when it did."""
    if reached_s is not None:
        return _in_time(reached_s, threshold_s)
    match ended.end:
        case End.COMPLETE:
            return NO_EVENT  # an answer without a single token
        case End.LEFT:
            return BAD if ended.duration_s > threshold_s else NO_EVENT
        case End.EXPIRED:
            return BAD if _had_time(ended, threshold_s) else NO_EVENT
    return BAD


def _had_time(ended: Ended, needed_s: float) -> bool:
    """Whether the client's deadline left the time that a good event may take.

    The deadline is compared, not the moment in which somebody noticed that it had passed.
    """
    return ended.deadline_s is None or ended.deadline_s >= needed_s


def _paced(ended: Ended, threshold_s: float) -> Tally:
    mean_s = ended.time_per_output_token_s
    if mean_s is None or ended.first_token_s is None:
        return NO_EVENT
    if ended.end is End.FAILED or mean_s > threshold_s:
        return BAD
    if ended.end is End.COMPLETE:
        return GOOD
    # The client no longer waits. If the next token had come in that moment, would the mean hold?
    stalled_s = (ended.duration_s - ended.first_token_s) / ended.num_tokens
    return BAD if stalled_s > threshold_s else GOOD


def _encoded(ended: Ended, item: EndedItem, threshold_s: float) -> Tally:
    match item.end:
        case ItemEnd.CACHED:
            return GOOD
        case ItemEnd.PUBLISHED:
            return _in_time(item.waited_s, threshold_s)
        case ItemEnd.FAILED:
            return BAD
    if item.waited_s > threshold_s or ended.end is End.FAILED:
        return BAD
    return NO_EVENT
