"""Words that say nothing: which a manifest may hold and the API server leaves out, or the reverse.

`false`, `0` and `{}` say nothing only where they are what Kubernetes assumes of a field that is not
there. A token that is not to be mounted is another thing than one that nobody spoke of.
"""

from __future__ import annotations

from typing import Any, Final

_TRUE_BY_DEFAULT: Final = frozenset(
    {
        "allocateLoadBalancerNodePorts",
        "allowPrivilegeEscalation",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "hostUsers",
    }
)
"""Flags that are true where they are missing."""
_ZERO_BY_DEFAULT: Final = frozenset(
    {"hostPort", "initialDelaySeconds", "minReadySeconds", "nodePort", "partition"}
)
"""Numbers that are 0 where they are missing. Of all others a 0 is kept, and means something."""
_CHOICES: Final = frozenset({"emptyDir", "namespaceSelector", "podSelector"})
"""Maps that choose by being there, empty or not."""


def is_empty(value: Any) -> bool:
    """Whether there is nothing in it."""
    return value is None or value is False or value in ({}, [], (), "", 0)


def says_nothing(field: str, value: Any) -> bool:
    """Whether a field with this value is the same as none."""
    if value is None or not is_empty(value):
        return value is None
    if isinstance(value, bool):
        return field not in _TRUE_BY_DEFAULT
    if isinstance(value, (int, float)):
        return field in _ZERO_BY_DEFAULT
    return not isinstance(value, dict) or field not in _CHOICES
