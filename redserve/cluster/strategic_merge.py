"""A `podTemplate` merged over a generated pod template, by Kubernetes' strategic rules.

Maps merge field by field and `null` removes a field. Lists whose elements have a key merge by it;
every other list is replaced. `$patch: delete` removes an element or empties a map,
`$patch: replace` takes the patch's word only.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

from redserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTAINER_LISTS: Final = ("containers", "initContainers", "ephemeralContainers")
_KEYS: Final[Mapping[tuple[str, ...], str]] = {
    ("spec", "volumes"): "name",
    ("spec", "imagePullSecrets"): "name",
    ("spec", "hostAliases"): "ip",
    ("spec", "topologySpreadConstraints"): "topologyKey",
    ("spec", "resourceClaims"): "name",
    ("spec", "schedulingGates"): "name",
    **{("spec", kind): "name" for kind in _CONTAINER_LISTS},
    **{
        ("spec", kind, field): key
        for kind in _CONTAINER_LISTS
        for field, key in {
            "env": "name",
            "ports": "containerPort",
            "volumeMounts": "mountPath",
            "volumeDevices": "devicePath",
        }.items()
    },
}
"""Path without list positions -> field by which elements are told apart."""
_WHOLE_ELEMENTS: Final = frozenset({("spec", "volumes"), ("spec", "resourceClaims")})
"""Lists whose elements are unions: a volume that gets another source must lose the first one."""
_DIRECTIVE: Final = "$patch"


def merge_pod_template(base: Mapping[str, Any], patch: Mapping[str, Any], field: str) -> Any:
    """`patch` over `base`; neither is changed and the result shares nothing with them.

    Args:
        base: The generated template.
        patch: The manifest's.
        field: Where the patch is in the manifest, for errors.

    Raises:
        ConfigError: A list element lacks its key, a value has another shape than the generated
            one, or a directive is unknown.
    """
    return _merge_map(base, patch, (), field)


def _merge_map(
    base: Mapping[str, Any], patch: Mapping[str, Any], path: tuple[str, ...], field: str
) -> dict[str, Any]:
    directive = _directive(patch, field)
    if directive == "delete":
        return {}
    merged = {} if directive == "replace" else deepcopy(dict(base))
    for name, value in patch.items():
        if name == _DIRECTIVE:
            continue
        if value is None:
            merged.pop(name, None)
        else:
            there = merged.get(name)
            merged[name] = _merge(there, value, (*path, name), f"{field}.{name}")
    return merged


def _merge(base: Any, patch: Any, path: tuple[str, ...], field: str) -> Any:
    if base is not None and _shape(base) != _shape(patch):
        raise ConfigError(f"must be {_shape(base)}, not {_shape(patch)}", field=field)
    if isinstance(patch, dict):
        return _merge_map(base or {}, patch, path, field)
    if isinstance(patch, list) and path in _KEYS:
        return _merge_list(base or [], patch, path, field)
    return deepcopy(patch)


def _merge_list(
    base: list[dict[str, Any]], patch: list[Any], path: tuple[str, ...], field: str
) -> list[dict[str, Any]]:
    key = _KEYS[path]
    replaces = any(element == {_DIRECTIVE: "replace"} for element in patch)
    merged: list[dict[str, Any]] = [] if replaces else deepcopy(base)
    for number, element in enumerate(patch):
        here = f"{field}[{number}]"
        if element == {_DIRECTIVE: "replace"}:
            continue
        if not isinstance(element, dict) or key not in element:
            raise ConfigError(f"must be a mapping with {key!r}, by which it is merged", field=here)
        directive = _directive(element, here)
        at = next((i for i, known in enumerate(merged) if known.get(key) == element[key]), None)
        if directive == "delete":
            if at is not None:
                del merged[at]
            continue
        there = {} if at is None or path in _WHOLE_ELEMENTS else merged[at]
        made = _merge_map(there, element, path, here)
        if at is None:
            merged.append(made)
        else:
            merged[at] = made
    return merged


def _directive(patch: Mapping[str, Any], field: str) -> str:
    for name in patch:
        if isinstance(name, str) and name.startswith("$") and name != _DIRECTIVE:
            raise ConfigError(f"{name} is not understood; there is only {_DIRECTIVE}", field=field)
    directive = patch.get(_DIRECTIVE, "merge")
    if directive not in ("merge", "replace", "delete"):
        raise ConfigError(
            f"{_DIRECTIVE} is {directive!r}; write delete, replace or merge", field=field
        )
    return str(directive)


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else "a value"
