"""Misspelt fields of a `podTemplate`, which an API server would only see in a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.facts import Refusal
from redserve.cluster.pod_fields import ROOT, TABLE
from redserve.spec.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REASON: Final = "InvalidPodTemplate"
_DIRECTIVES: Final = "$"
"""First character of words of a merge, which are none of a pod."""


def name_refusals(patch: Any, field: str, struct: str = ROOT) -> Iterator[Refusal]:
    """Every field of `patch` that Kubernetes does not know, in the order of the manifest.

    Args:
        patch: A `podTemplate`, or a part of one; of whatever shape.
        field: Where it is.
        struct: Its type in the table.
    """
    if isinstance(patch, list):
        for number, element in enumerate(patch):
            yield from name_refusals(element, f"{field}[{number}]", struct)
    elif isinstance(patch, dict):
        known = _FIELDS[struct]
        for name, value in patch.items():
            if name in known:
                inner = known[name]
                if inner:
                    yield from name_refusals(value, f"{field}.{name}", inner)
            elif not str(name).startswith(_DIRECTIVES):
                hint = did_you_mean(str(name), list(known))
                yield Refusal(_REASON, f"{field}.{name}", f"unknown field; {hint}")


def _parse(table: str) -> dict[str, dict[str, str]]:
    fields: dict[str, dict[str, str]] = {}
    for line in table.replace("\n  ", " ").strip().splitlines():
        struct, _, words = line.partition(": ")
        pairs = (word.partition(":") for word in words.split())
        fields[struct] = {name: inner for name, _, inner in pairs}
    return fields


_FIELDS: Final[Mapping[str, Mapping[str, str]]] = _parse(TABLE)
