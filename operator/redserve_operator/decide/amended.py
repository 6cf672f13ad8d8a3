"""Objects that come back from a write other than they were sent.

A policy or a webhook changes them on the way, or the API server knows another word for the same.
To write them again would change nothing, for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve_operator.decide.drift import differences
from redserve_operator.decide.empties import is_empty
from redserve_operator.decide.objects import key_of, stamp_of, uid_of
from redserve_operator.decide.observed import Amended

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redserve.cluster.facts import Manifest
    from redserve_operator.decide.drift import Difference
    from redserve_operator.decide.observed import ObjectKey

_LONGEST_VALUE: Final = 80


def amendment(sent: Manifest, answer: Manifest) -> Amended | None:
    """What has become of an object on its way into the API server; None when nothing has."""
    found = differences(sent, answer)
    return Amended(uid_of(answer), stamp_of(sent), found) if found else None


def is_known(
    desired: Manifest,
    have: Manifest,
    amended: Mapping[ObjectKey, Amended],
    *,
    for_ever: bool = False,
) -> bool:
    """Whether an object differs from what is wanted exactly as it did right after our last write.

    False when that is so long ago that it is to be tried again, unless it holds `for_ever`.
    """
    known = amended.get(key_of(desired))
    return (
        known is not None
        and (for_ever or not known.is_due)
        and (known.uid, known.stamp) == (uid_of(have), stamp_of(desired))
        and known.differences == differences(desired, have)
    )


def told(amended: Mapping[ObjectKey, Amended]) -> str:
    """A sentence about what was changed; empty when nothing was that anybody should know."""
    lines = list(_lines(amended))
    if not lines:
        return ""
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"an admission changes what is written: {lines[0]}{more}"


def _lines(amended: Mapping[ObjectKey, Amended]) -> Iterator[str]:
    for key, known in sorted(amended.items(), key=lambda item: item[0]):
        for one in known.differences:
            if not _is_left_out(one):
                shown = f"{_short(one.have)} in place of {_short(one.want)}"
                yield f"{key.kind} {key.name}: {one.where} is {shown}"


def _is_left_out(difference: Difference) -> bool:
    """Whether the API server only keeps no word that says nothing."""
    return difference.have is None and is_empty(difference.want)


def _short(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
