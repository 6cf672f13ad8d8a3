"""What the API server said to a service's pods in a dry run, for as long as that counts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve_operator.kube.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve_operator.decide.observed import Probed
    from redserve_operator.keys import ServiceKey

LASTS_S: Final = 60.0
"""A welcome is asked for again after this time."""
REFUSED_AGAIN: Final = Backoff(first_s=2.0, longest_s=LASTS_S, jitter=0.0)
"""A refusal may be mended in the cluster without a change of the manifest, and nobody tells: a
priority class, an account or a quota comes a moment later, or not for days."""


@dataclass(frozen=True, slots=True)
class _Trial:
    probed: Probed
    over_at: float
    num_refused: int


class Trials:
    """The last trial of each service.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[ServiceKey, _Trial] = {}

    def note(self, service: ServiceKey, probed: Probed) -> None:
        """Pods of a service were tried just now."""
        last = self._last.get(service)
        is_same = last is not None and last.probed.revision == probed.revision
        before = last.num_refused if last is not None and is_same else 0
        num_refused = before + 1 if probed.refused else 0
        lasts_s = REFUSED_AGAIN.wait_s(num_refused, 0.0) if num_refused else LASTS_S
        self._last[service] = _Trial(probed, self._clock() + lasts_s, num_refused)

    def known(self, service: ServiceKey) -> Probed | None:
        """What is still true of a service's pods; None when they have to be tried."""
        last = self._last.get(service)
        return None if last is None or self._clock() >= last.over_at else last.probed

    def again_after_s(self, service: ServiceKey) -> float | None:
        """When pods that were refused are to be tried again, seconds; None: they were not.

        0 when that is over already: whoever does not try them then has to `forget`.
        """
        last = self._last.get(service)
        if last is None or not last.num_refused:
            return None
        return max(0.0, last.over_at - self._clock())

    def forget(self, service: ServiceKey) -> None:
        """The service is gone, or nobody asks for a trial of it any more."""
        self._last.pop(service, None)
