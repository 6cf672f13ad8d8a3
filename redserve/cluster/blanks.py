"""Words of a `podTemplate` that say nothing: the API server puts its default in their place."""

from __future__ import annotations

from typing import Any, Final

_TEXTS: Final = frozenset(
    {
        "dnsPolicy",
        "imagePullPolicy",
        "path",  # of httpGet; elsewhere an empty one is refused
        "protocol",
        "restartPolicy",
        "schedulerName",
        "scheme",
        "terminationMessagePath",
        "terminationMessagePolicy",
    }
)
_NUMBERS: Final = frozenset(
    {"failureThreshold", "periodSeconds", "successThreshold", "timeoutSeconds"}
)
_OF_OTHERS: Final = frozenset(
    {"annotations", "labels", "matchLabels", "nodeSelector", "volumeAttributes"}
)
"""Maps whose keys are no fields."""


def without_blanks(value: Any) -> Any:
    """A copy of a pod spec, or a part of it, without fields of which empty means the default."""
    if isinstance(value, list):
        return [without_blanks(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        field: entry if field in _OF_OTHERS else without_blanks(entry)
        for field, entry in value.items()
        if not _is_blank(field, entry)
    }


def _is_blank(field: str, value: Any) -> bool:
    if field in _TEXTS:
        return bool(value == "")
    return field in _NUMBERS and value == 0 and not isinstance(value, bool)
