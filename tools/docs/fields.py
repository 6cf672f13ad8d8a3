"""Rows about the fields of a struct: name, type with bounds, default, description."""

from __future__ import annotations

import types
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen
from pydantic import WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from redserve.spec.base import Spec
from redserve.spec.problems import struct_in
from redserve.spec.quantity import AtLeast, Quantity
from tools.docs.markdown import code, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Titles = dict[type[Spec], str]
"""Struct -> title of the section that describes it on the same page."""

_WORDS: Final = {
    int: "integer",
    str: "text",
    bool: "`true` or `false`",
    Quantity: "quantity",
}


def field_table(fields: Mapping[str, FieldInfo], titles: Titles) -> list[str]:
    """Lines of a table with what a manifest's author must know."""
    rows = [
        (code(name), type_words(field, titles), _default(field), field.description or "")
        for name, field in fields.items()
    ]
    return table(("field", "type", "default", "what it is"), rows)


def type_words(field: FieldInfo, titles: Titles) -> str:
    """The type of a field and its bounds, in words; structs are links."""
    if any(isinstance(part, WithJsonSchema) for part in field.metadata):
        return "time" if field.annotation is datetime else "number or text"
    bounds = _bounds(field.metadata, "entries" if _is_many(field.annotation) else "characters")
    inner = struct_in(field.annotation)
    if inner is not None:
        assert issubclass(inner, Spec)
        kind = "list of " if get_origin(_bare(field.annotation)) is tuple else ""
        return f"{kind}[{inner.__name__}]({anchor(titles[inner])}){bounds}"
    return f"{_word(field.annotation)}{bounds or _inner_bounds(field.annotation)}"


def named_fields(struct: type[Spec]) -> dict[str, FieldInfo]:
    """Fields by the name that a manifest uses."""
    return {field.alias or name: field for name, field in struct.model_fields.items()}


def anchor(title: str) -> str:
    """Link to a section of the same page."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return f"#{kept.replace(' ', '-')}"


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
    return _WORDS.get(bare, "any")


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and `| None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _bare(next(arg for arg in get_args(annotation) if arg is not type(None)))
    return annotation


def _inner_bounds(annotation: Any) -> str:
    return _bounds(list(_metadata(annotation)))


def _metadata(annotation: Any) -> Iterator[Any]:
    for arg in (annotation, *get_args(annotation)):
        if get_origin(arg) is Annotated:
            for part in get_args(arg)[1:]:
                yield from part.metadata if isinstance(part, FieldInfo) else (part,)


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
    if default in ("", ()):
        return ""
    if isinstance(default, tuple):
        return ", ".join(code(one) for one in default)
    return code(str(default).lower() if isinstance(default, bool) else default)
