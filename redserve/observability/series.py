"""How series are chosen, and lengths of time as Prometheus writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OF_SERVICE: Final = "namespace, redservice"
"""Labels by which rules keep services apart."""
OF_PROCESS: Final = "namespace, redservice, pool, revision, instance"
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Series:
    """The series of one service.

    Attributes:
        service: Its name.
        namespace: Where it is; None takes it wherever it is, each namespace for itself.
    """

    service: str
    namespace: str | None

    def of(self, metric: str, *matchers: str) -> str:
        """A selector, such as `up{redservice="demo"}`; each of `matchers` is `label="value"`.

        Names of services and namespaces have no character that would need an escape.
        """
        own = [f'redservice="{self.service}"']
        if self.namespace is not None:
            own.insert(0, f'namespace="{self.namespace}"')
        return f"{metric}{{{', '.join([*own, *matchers])}}}"


def duration(seconds: float) -> str:
    """The shortest way to write whole seconds in one unit, such as `5m` or `28d`."""
    whole = round(seconds)
    size, unit = next((size, unit) for size, unit in _UNITS if whole % size == 0)
    return f"{whole // size}{unit}"
