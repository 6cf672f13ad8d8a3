"""docs/reference/configuration.md: every field of a RedService."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen
from pydantic import WithJsonSchema
from pydantic_core import PydanticUndefined

from redserve.spec.base import Spec
from redserve.spec.pool import PoolSpec
from redserve.spec.problems import struct_in
from redserve.spec.quantity import AtLeast, Quantity
from redserve.spec.service import RedService
from tools.docs.markdown import code, page, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

INTRODUCTION: Final = (
    "A manifest holds one `RedService`. `redserve validate -f FILE` checks it; errors name line "
    "and field. The smallest one:",
    "",
    "```yaml",
    "apiVersion: redserve.dev/v1alpha1",
    "kind: RedService",
    "metadata:",
    "  name: demo",
    "spec:",
    "  model:",
    "    uri: hf://organisation/name",
    "  encoder: {}",
    "  llm: {}",
    "```",
    "",
    "A *quantity* is a number with a unit as in Kubernetes: `512Mi`, `1Gi`, `4`, `500m`. Fields "
    "without a default are optional, unless they are *required*. "
    "[An example](../../examples/redservice.yaml).",
    "",
)
POOL_PATH: Final = "spec.<pool>"
_POOL_TITLE: Final = "Every pool: spec.encoder, spec.llm, spec.router"


def configuration_page() -> str:
    """The page."""
    lines = list(INTRODUCTION)
    for path, struct in sections():
        lines += _section(path, struct)
    return page("Configuration reference", *lines)


def sections() -> list[tuple[str, type[Spec]]]:
    """Every struct once, with the path where it is first met; what pools share comes first."""
    found: dict[type[Spec], str] = {}

    def visit(path: str, struct: type[Spec]) -> None:
        if struct in found:
            return
        found[struct] = path
        if issubclass(struct, PoolSpec) and struct is not PoolSpec:
            visit(POOL_PATH, PoolSpec)
        for name, field in own_fields(struct).items():
            inner = struct_in(field.annotation)
            if inner is not None:
                assert issubclass(inner, Spec)
                visit(f"{path}.{name}".removeprefix("."), inner)

    visit("", RedService)
    return [(path, struct) for struct, path in found.items()]


def own_fields(struct: type[Spec]) -> dict[str, FieldInfo]:
    """Fields by the name that a manifest uses, without those that all pools have."""
    shared = PoolSpec.model_fields if struct is not PoolSpec else {}
    is_pool = issubclass(struct, PoolSpec)
    return {
        field.alias or name: field
        for name, field in struct.model_fields.items()
        if not (is_pool and name in shared)
    }


def _section(path: str, struct: type[Spec]) -> list[str]:
    title = {"": "RedService", POOL_PATH: _POOL_TITLE}.get(path, path)
    about = (struct.__doc__ or "").strip()
    lines = [f"## {title}", about]
    if issubclass(struct, PoolSpec) and struct is not PoolSpec:
        lines.append(f"It also has the fields of [every pool]({_anchor(_POOL_TITLE)}).")
    lines.append("")
    rows = [
        (code(name), _type(path, name, field), _default(field), field.description or "")
        for name, field in own_fields(struct).items()
    ]
    lines += table(("field", "type", "default", "what it is"), rows)
    inherited = {rule.message for rule in PoolSpec.RULES} if struct is not PoolSpec else set()
    rules = [rule.message for rule in struct.RULES if rule.message not in inherited]
    if rules:
        lines += ["", "Rules: " + "; ".join(rules) + "."]
    return [*lines, ""]


def _type(path: str, name: str, field: FieldInfo) -> str:
    inner = struct_in(field.annotation)
    bounds = _bounds(field.metadata, "entries" if _is_many(field.annotation) else "characters")
    if any(isinstance(part, WithJsonSchema) for part in field.metadata):
        return "number or text"
    if inner is not None:
        assert issubclass(inner, Spec)
        where = next(found for found, struct in sections() if struct is inner)
        title = {POOL_PATH: _POOL_TITLE}.get(where, where)
        kind = "list of " if get_origin(_bare(field.annotation)) is tuple else ""
        return f"{kind}[{inner.__name__}]({_anchor(title)}){bounds}"
    return f"{_word(field.annotation)}{bounds or _inner_bounds(field.annotation)}"


def _is_many(annotation: Any) -> bool:
    return get_origin(_bare(annotation)) in (tuple, dict)


def _word(annotation: Any) -> str:
    bare = _bare(annotation)
    origin = get_origin(bare)
    if origin is Literal:
        return " or ".join(code(value) for value in get_args(bare))
    if origin is tuple:
        return f"list of {_word(get_args(bare)[0])}"
    if origin is dict:
        value = _bare(get_args(bare)[1])
        return "mapping" if value is Any else f"mapping of {_word(value)}"
    words = {int: "integer", str: "text", bool: "`true` or `false`", Quantity: "quantity"}
    return words.get(bare, "any")


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and `| None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _bare(next(arg for arg in get_args(annotation) if arg is not type(None)))
    return annotation


def _inner_bounds(annotation: Any) -> str:
    for part in _metadata(annotation):
        found = _bounds([part])
        if found:
            return found
    return ""


def _metadata(annotation: Any) -> Iterator[Any]:
    for arg in get_args(annotation):
        if get_origin(arg) is Annotated:
            yield from get_args(arg)[1:]
    if get_origin(annotation) is Annotated:
        yield from get_args(annotation)[1:]


def _bounds(metadata: list[Any], unit: str = "characters") -> str:
    low = high = ""
    for bound in metadata:
        if isinstance(bound, Ge):
            low = str(bound.ge)
        elif isinstance(bound, Le):
            high = str(bound.le)
        elif isinstance(bound, AtLeast):
            low = bound.minimum
        elif isinstance(bound, MaxLen):
            return f", at most {bound.max_length} {unit}"
    if low and high:
        return f", {low} to {high}"
    return f", at least {low}" if low else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    default = field.default
    if default is None or default is PydanticUndefined or isinstance(default, Spec):
        return ""
    if isinstance(default, tuple):
        return ", ".join(code(one) for one in default)
    return code(str(default).lower() if isinstance(default, bool) else default)


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return f"#{kept.replace(' ', '-')}"
