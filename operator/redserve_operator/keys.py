"""How a service is named inside of the operator."""

from __future__ import annotations

from typing import NamedTuple


class ServiceKey(NamedTuple):
    """A RedService; queue, cache and logs know it by this."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
