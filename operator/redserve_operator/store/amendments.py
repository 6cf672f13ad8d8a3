"""How objects came back from this operator's last writes, where that was not as they were sent."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redserve_operator.decide.observed import Amended, ObjectKey
    from redserve_operator.keys import ServiceKey

LASTS_S: Final = 600.0
"""Such an object is written again after this time: what changed it may be gone, untold."""


class Amendments:
    """By service and object; lost with the process, which costs one write of each.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[ServiceKey, dict[ObjectKey, tuple[Amended, float]]] = {}

    def note(self, service: ServiceKey, key: ObjectKey, amended: Amended | None) -> None:
        """An object was written just now; None: it came back as it was sent."""
        if amended is None:
            self.forget(service, key)
            return
        self._known.setdefault(service, {})[key] = (amended, self._clock() + LASTS_S)

    def forget(self, service: ServiceKey, key: ObjectKey) -> None:
        """The object is gone."""
        known = self._known.get(service, {})
        known.pop(key, None)
        if not known:
            self._known.pop(service, None)

    def of(self, service: ServiceKey) -> Mapping[ObjectKey, Amended]:
        """Everything that is known of a service's objects."""
        now = self._clock()
        return {
            key: replace(amended, is_due=now >= due)
            for key, (amended, due) in self._known.get(service, {}).items()
        }
