"""Values at the edges of every field of the schema, to ask two judges about."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from tests.spec.verdicts import BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.spec.crd_schema import Schema


def probes(spec: Schema) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is tried -> a manifest that has it; all else in it is as good as the schema can tell."""
    for path, value in _values("spec", spec, set()):
        manifest = copy.deepcopy(BASE)
        manifest["spec"] = _merged(BASE["spec"], value)
        yield path, manifest


def _merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}
    return copy.deepcopy(over)


def _values(path: str, node: Schema, seen: set[str]) -> Iterator[tuple[str, Any]]:
    """Values for a node, each with the path of the field that is at its edge.

    A field that several structs have alike is tried in the first of them.
    """
    for value in _edges(node):
        yield f"{path}={str(value)[:40]!r}", value
    if node.get("type") == "array":
        for inner, value in _values(f"{path}[0]", node["items"], seen):
            yield inner, [value]
    elif "additionalProperties" in node:
        for inner, value in _values(f"{path}.key", node["additionalProperties"], seen):
            yield inner, {"key": value}
    for name, field in node.get("properties", {}).items():
        if (known := json.dumps({name: field})) in seen:
            continue
        seen.add(known)
        for inner, value in _values(f"{path}.{name}", field, seen):
            yield inner, {**_least(node), name: value}


def _least(node: Schema) -> Any:
    """The smallest value that the schema accepts."""
    if "enum" in node:
        return node["enum"][0]
    match node.get("type"):
        case "object":
            fields = node.get("properties", {})
            return {name: _least(fields[name]) for name in node.get("required", ())}
        case "array":
            return [_least(node["items"])] * node.get("minItems", 0)
        case "integer":
            return node["minimum"]
        case "boolean":
            return True
        case "string":
            about = node.get("description", "")
            schemes = [scheme for scheme in ("hf://", "http") if scheme in about]
            return {"hf://": "hf://a/b", "http": "http://a:1", "": "abc"}[(schemes or [""])[0]]
    return node["maximum"]


def _edges(node: Schema) -> Iterator[Any]:
    # Not 2.0: kubectl sends 2, and who sends 2.0 gets other answers from rules than from bounds.
    yield from (None, True, 0, 1, -1, 1.5, "", "a", "1", "a b", "ä", "-", [], {}, {"zzz": 1})
    for bound in ("minimum", "maximum"):
        if bound in node:
            yield from (node[bound] - 1, node[bound], node[bound] + 1, str(node[bound]))
    for bound in ("minLength", "maxLength"):
        if bound in node:
            yield from ("a" * (node[bound] + more) for more in (-1, 0, 1) if node[bound] + more > 0)
    for choice in node.get("enum", ()):
        yield from (choice, choice.lower())
    if "maxItems" in node:
        yield [_least(node["items"])] * 2
        yield [_least(node["items"])] * (node["maxItems"] + 1)
    if "x-kubernetes-int-or-string" in node:
        yield from ("1%", "100%", "101%", "1Mi", "1.5Gi", "1e3", "1E", "0.1", "99.9", "1n", "2Ei")
    if "maxProperties" in node:
        yield {f"k{number}": _least(node["additionalProperties"]) for number in range(64)}
        yield {"a/b/c": _least(node["additionalProperties"])}
