"""docs/reference/helm-values.md: every value of the chart, from its comment and its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import yaml

from tools.docs.markdown import code, page, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHART: Final = Path(__file__).resolve().parents[2] / "helm/redserve"
INTRODUCTION: Final = (
    "What `helm install redserve ./helm/redserve --set NAME=VALUE` takes, or `--values FILE`. "
    "Values that are not listed here are refused. Installing step by step: "
    "[how-to/kubernetes.md](../how-to/kubernetes.md).",
    "",
)


def helm_values_page() -> str:
    """The page."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    rows = [
        (code(path), _allowed(_schema_of(path, schema), schema), _shown(value), comment)
        for path, value, comment in values((CHART / "values.yaml").read_text(encoding="utf-8"))
    ]
    return page(
        "Helm values", *INTRODUCTION, *table(("value", "type", "default", "what it is"), rows)
    )


def values(text: str) -> Iterator[tuple[str, Any, str]]:
    """Path, default and comment of each value, in the order of values.yaml.

    A comment is what stands directly above a key. A mapping without a comment is a group: its keys
    are listed, it is not. One with a comment is listed, and so are its keys if they have comments.
    """
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    yield from _walk(cast("yaml.MappingNode", root), "", lines)


def _walk(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[tuple[str, Any, str]]:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        comment = _comment_above(key.start_mark.line, lines)
        group = isinstance(value, yaml.MappingNode) and any(
            _comment_above(inner.start_mark.line, lines) for inner, _ in value.value
        )
        if group:
            yield from _walk(value, f"{path}.", lines)
        else:
            yield path, yaml.safe_load(yaml.serialize(value)), comment


def _comment_above(line: int, lines: list[str]) -> str:
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return " ".join(found)


def _schema_of(path: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a value.

    Raises:
        KeyError: It has none; the path is in the message.
    """
    found: Mapping[str, Any] = schema
    for part in path.split("."):
        try:
            found = _resolved(found["properties"][part], schema)
        except KeyError:
            raise KeyError(f"values.schema.json knows no {path}") from None
    return found


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref")
    if reference is None:
        return node
    return cast("Mapping[str, Any]", schema["definitions"][reference.rpartition("/")[2]])


def _allowed(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "enum" in node:
        return " or ".join(code(json.dumps(one) if one == "" else one) for one in node["enum"])
    words = {
        "boolean": "`true` or `false`",
        "integer": "integer",
        "string": "text",
        "object": "mapping",
        "array": "list",
    }
    kind = words[node["type"]]
    if "minimum" in node:
        return f"{kind}, {node['minimum']} to {node['maximum']}"
    items = _resolved(node.get("items", {}), schema)
    if items.get("type") == "string":
        return f"{kind} of text"
    if items.get("type") == "object":
        return f"{kind} of mappings"
    inner = node.get("additionalProperties")
    return f"{kind} of text" if isinstance(inner, dict) else kind


def _shown(value: Any) -> str:
    if value in ("", [], {}):
        return ""
    return code(value if isinstance(value, str) else json.dumps(value))
