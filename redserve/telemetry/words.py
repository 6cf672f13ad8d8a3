"""Every value of the labels whose values are words of ours.

A rate does not see what a series begins with: one that appears with its first event hides that
event, and a burst of them. So every series of a counter with such a label is there from the start,
at 0, and no event can make another one. Words that a service defines itself (outcomes of an item,
kinds of a problem) are named here once more, for the library knows no service; tests compare both.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from redserve.errors import (
    ALL_ERRORS,
    Cancelled,
    CorruptTransfer,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    PeerLost,
    TensorGone,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics import MetricWrapperBase

OK: Final = "OK"
CODES: Final = (OK, *dict.fromkeys(kind.grpc_code for kind in ALL_ERRORS))
"""Canonical gRPC codes with which a request can end."""
REASONS: Final = tuple(kind.reason for kind in ALL_ERRORS)
"""Words of the error tree."""
ITEM_OUTCOMES: Final = ("encoded", "encoder_cached", "prefix_covered", "failed")
NEEDED_AGAIN: Final = "needed_again"
"""An LLM replica lost an embedding that had been published, or could not get it."""
CONTENT_MISSING: Final = "content_missing"
"""An encoder lacks the bytes of a picture that it was not sent because it had them."""
RETRIES: Final = (
    NEEDED_AGAIN,
    CONTENT_MISSING,
    *(
        kind.reason.lower()
        for kind in (
            Overloaded, DeadlineExceeded, Cancelled, Unavailable, PeerLost, TensorGone,
            CorruptTransfer, InternalError,
        )
    ),
)  # fmt: skip
"""Why an item is dispatched again: what another encoder may mend."""
ENCODE_ERRORS: Final = (*REASONS, CONTENT_MISSING.upper())
"""Why an encoder does not deliver an item."""
LATE: Final = "late"
"""Announced for a generation or an attempt that is over."""
DOUBLED: Final = "doubled"
"""Announced although it is there."""
NOT_NEEDED: Final = "not_needed"
"""The prefix cache covers it, or its request is over."""
EVICTED: Final = "evicted"
"""It made room for older requests."""
DROPS: Final = (LATE, DOUBLED, NOT_NEEDED, EVICTED, *(reason.lower() for reason in REASONS))
"""Why an LLM replica throws an embedding away; the words of errors are those of failed pulls."""
DISCOVERY_PROBLEMS: Final = (
    "unreachable", "credentials", "unauthorized", "forbidden", "refused", "expired",
)  # fmt: skip
RECONCILE_RESULTS: Final = ("unchanged", "acted", "refused", "failed", "gone")


def begin_at_zero(metric: MetricWrapperBase, *values: Iterable[str]) -> None:
    """Make a series of every combination of values of a metric's labels, in their order."""
    for labels in product(*values):
        metric.labels(*labels)
