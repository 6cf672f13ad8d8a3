"""A request that has ended, in the form in which promises are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.errors import Cancelled, DeadlineExceeded
from redserve.slo import Ended, EndedItem, ItemEnd, end_of
from redserve_router.dispatch.item_state import Outcome

if TYPE_CHECKING:
    from redserve.telemetry.timeline import Timeline
    from redserve_router.dispatch.item_state import ItemState
    from redserve_router.dispatch.life import RequestLife

LAST_MOMENT_S: Final = 0.05
"""A call that is cancelled this shortly before its deadline was ended by it: gRPC may be faster.
And a deadline may have been so much longer when the client set it: some passed on the way here."""
_ITEM_ENDS: Final = {
    Outcome.ENCODED: ItemEnd.PUBLISHED,
    Outcome.ENCODER_CACHED: ItemEnd.CACHED,
    Outcome.FAILED: ItemEnd.FAILED,
    None: ItemEnd.WAITING,
}


def reckon(life: RequestLife, timeline: Timeline, code: str) -> Ended:
    """What promises are judged by.

    Args:
        life: The request, which has ended.
        timeline: Of it; says when it came, when its first token left and when it ended.
        code: Canonical name of the gRPC code that it ended with.
    """
    deadline = life.deadline
    own = deadline.from_client
    if code == Cancelled.grpc_code and own and deadline.remaining_s() < LAST_MOMENT_S:
        code = DeadlineExceeded.grpc_code

    def since_arrival_s(at_ns: int) -> float | None:
        return (at_ns - timeline.received_ns) / 1e9 if at_ns else None

    return Ended(
        end=end_of(code, own_deadline=own),
        duration_s=(timeline.finished_ns - timeline.received_ns) / 1e9,
        deadline_s=deadline.timeout_s + LAST_MOMENT_S if own else None,
        first_token_s=since_arrival_s(timeline.first_token_ns),
        last_token_s=since_arrival_s(life.last_token_ns),
        num_tokens=len(life.made),
        items=tuple(
            reckon_item(state, timeline.finished_ns) for state in life.items if _is_open(state)
        ),
    )


def reckon_item(state: ItemState, until_ns: int) -> EndedItem:
    """What promises are judged by: an item that has ended, or waited until `until_ns`."""
    end_ns = state.ended_ns or until_ns
    return EndedItem(_ITEM_ENDS[state.outcome], (end_ns - state.dispatched_ns) / 1e9)


def _is_open(state: ItemState) -> bool:
    """Whether the end of its request is what decides on it."""
    if state.is_judged or not state.dispatched_ns:
        return False
    return state.outcome is not Outcome.PREFIX_COVERED
