"""Whether an object in the API server still is what we want: a comparison of our fields only.

What others add beside our fields is theirs: defaults, another entry of a list that is keyed by a
name, a status. What they add *inside* a value that Kubernetes treats as one (a selector, the rules
of a Role, the peers of a NetworkPolicy) changes our value, and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.spec.quantity import Quantity
from redserve_operator.decide.empties import says_nothing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "claims": ("name",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "secrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that Kubernetes merges by these keys; all others are one value.

`topologySpreadConstraints` may repeat a key pair in a template: then it is compared as one value.
"""
_PORT_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("containerPort", "protocol"),
    "initContainers": ("containerPort", "protocol"),
    "spec": ("port", "protocol"),  # of a Service
}
"""Keys of `ports` by the field that holds it; those of a NetworkPolicy are one value."""
_KEY_DEFAULTS: Final[Mapping[str, str]] = {"protocol": "TCP"}
_WHOLE_MAPS: Final = frozenset(
    {"emptyDir", "matchLabels", "namespaceSelector", "nodeSelector", "podSelector", "selector"}
)
"""Maps that are one value: a foreign key in them is a change of ours."""
_WHOLE_ENTRIES: Final = frozenset({"egress", "from", "ingress", "rules", "to", "volumes"})
"""Lists whose entries are one value each: another source of a volume, a peer that is wider."""
_EITHER: Final[Mapping[str, frozenset[str]]] = {
    "env": frozenset({"value", "valueFrom"}),
    "spec": frozenset({"maxUnavailable", "minAvailable"}),  # of a PodDisruptionBudget
}
"""Fields of which an object holds one: the other one beside or instead of ours is a change."""
_AMOUNT_MAPS: Final = frozenset({"capacity", "hard", "limits", "overhead", "requests"})
_AMOUNTS: Final = frozenset({"divisor", "sizeLimit"})


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of ours that is not as we want it.

    Attributes:
        where: For people: `spec.template.spec.containers[main].image`.
        want: What we want.
        have: What there is; None when the field is missing.
    """

    where: str
    want: Any
    have: Any


def drifted(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> bool:
    """Whether some field that we want is missing or has another value.

    Absent and empty are the same where a field that is not there means just that: the API server
    drops empty lists, maps and texts as it pleases.
    """
    return next(_compare(desired, observed, (), ""), None) is not None


def differences(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Every field of ours that is not as we want it, in our order."""
    return tuple(_compare(desired, observed, (), ""))


def _compare(want: Any, have: Any, path: tuple[str, ...], where: str) -> Iterator[Difference]:
    field = path[-1] if path else ""
    if says_nothing(field, want) and says_nothing(field, have):
        return
    if isinstance(want, dict) and isinstance(have, dict):
        yield from _compare_maps(want, have, path, where)
    elif isinstance(want, (list, tuple)) and isinstance(have, (list, tuple)):
        yield from _compare_lists(want, have, path, where)
    elif isinstance(want, (dict, list, tuple)) or not _same_scalar(want, have, path):
        yield Difference(where, want, have)


def _compare_maps(
    want: Mapping[str, Any], have: Mapping[str, Any], path: tuple[str, ...], where: str
) -> Iterator[Difference]:
    if any(have[key] not in (None, []) for key in _excluded(want, have, path)):
        yield Difference(where, want, have)
        return
    for key, value in want.items():
        yield from _compare(value, have.get(key), (*path, key), f"{where}.{key}".removeprefix("."))


def _excluded(
    want: Mapping[str, Any], have: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[str]:
    """Fields of others that cannot be there beside ours."""
    field = path[-1] if path else ""
    foreign = (key for key in have if key not in want)
    if field in _WHOLE_MAPS or field in _WHOLE_ENTRIES:
        yield from foreign
    elif not _EITHER.get(field, frozenset()).isdisjoint(want):
        yield from (key for key in foreign if key in _EITHER[field])


def _compare_lists(
    want: Sequence[Any], have: Sequence[Any], path: tuple[str, ...], where: str
) -> Iterator[Difference]:
    keys = _keys_of(path)
    if keys:
        wanted, there = _by_key(want, keys), _by_key(have, keys)
        if wanted is not None and there is not None:
            for key, one in wanted.items():
                yield from _compare(one, there.get(key), path, f"{where}[{key[0]}]")
            return
    if len(want) != len(have):
        yield Difference(where, want, have)
        return
    for number, (one, other) in enumerate(zip(want, have, strict=True)):
        yield from _compare(one, other, path, f"{where}[{number}]")


def _keys_of(path: tuple[str, ...]) -> tuple[str, ...]:
    if path[-1] == "ports" and len(path) > 1:
        return _PORT_KEYS.get(path[-2], ())
    return _LIST_KEYS.get(path[-1], ())


def _by_key(
    entries: Sequence[Any], keys: tuple[str, ...]
) -> dict[tuple[Any, ...], Mapping[str, Any]] | None:
    """The entries by their keys; None when one has none or two have the same."""
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        key = tuple(entry.get(name, _KEY_DEFAULTS.get(name)) for name in keys)
        if None in key or key in found:
            return None
        found[key] = entry
    return found


def _same_scalar(want: Any, have: Any, path: tuple[str, ...]) -> bool:
    if isinstance(want, bool) or isinstance(have, bool):
        return want is have
    if want == have:
        return True
    if want is None or have is None or isinstance(have, (dict, list)):
        return False
    if _is_amount(path):
        return _same_amount(want, have)
    # Int-or-string fields: a port, maxUnavailable. Two texts are never "almost the same".
    return isinstance(want, int) != isinstance(have, int) and str(want) == str(have)


def _is_amount(path: tuple[str, ...]) -> bool:
    return path[-1] in _AMOUNTS or (len(path) > 1 and path[-2] in _AMOUNT_MAPS)


def _same_amount(want: Any, have: Any) -> bool:
    try:
        return _milli(want) == _milli(have)
    except ValueError:
        return False


def _milli(amount: Any) -> int:
    """In thousandths, rounded up, as the API server keeps all amounts; raises `ValueError`."""
    value = Quantity.parse(str(amount)).value * 1000
    return -(-value.numerator // value.denominator)
