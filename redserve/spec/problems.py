"""What is wrong with a manifest, each problem with its place and its mend."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel

from redserve.spec.patterns import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from redserve.spec.yaml_source import Position, YamlSource

_SIMILARITY: Final = 0.6
_PLAIN: Final = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be a text: quote it",
    "dict_type": "must be a mapping of fields",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "tuple_type": "must be a list",
    "too_long": "must have at most {max_length} entries, not {actual_length}",
    "too_short": "must have at least {min_length} entries, not {actual_length}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend.

    Attributes:
        position: Where in the file.
        field: Path of the field, such as `spec.encoder.replicas`; empty for the whole document.
        message: What is wrong and what to write instead.
    """

    position: Position
    field: str
    message: str


def field_path(path: Sequence[str | int]) -> str:
    """`("spec", "slos", 0, "name")` as `spec.slos[0].name`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def field_steps(field: str) -> list[str | int]:
    """The inverse of `field_path`."""
    steps = re.findall(r"\[(\d+)\]|([^.\[\]]+)", field)
    return [int(number) if number else name for number, name in steps]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint that names the closest of `known`, else all of them."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=_SIMILARITY)
    if close:
        return f"did you mean {by_lower[close[0]]}?"
    return f"choose from {', '.join(sorted(known))}"


def problems_of(
    error: ValidationError, model: type[BaseModel], source: YamlSource
) -> tuple[Problem, ...]:
    """Every problem that pydantic found, in the order of the file."""
    made = [_problem(details, model, source) for details in error.errors(include_url=False)]
    return tuple(sorted(made, key=lambda one: (one.position.line, one.position.column)))


def _problem(details: ErrorDetails, model: type[BaseModel], source: YamlSource) -> Problem:
    path = [step for step in details["loc"] if step != "[key]"]
    kind = details["type"]
    context: dict[str, Any] = details.get("ctx") or {}
    if kind == "extra_forbidden":
        known = known_fields(model, path[:-1])
        hint = did_you_mean(str(path[-1]), known)
        message = f"unknown field; {hint}"
        return Problem(source.key_position_of(path), field_path(path), message)
    if kind == "missing":
        about = field_info(model, path)
        message = f"is required: {about.description}" if about else "is required"
        return Problem(source.key_position_of(path[:-1]), field_path(path), message)
    if kind == "rule":
        path = [*path, *(part for part in str(context["field"]).split(".") if part)]
        return Problem(source.key_position_of(path), field_path(path), str(context["sentence"]))
    return Problem(source.position_of(path), field_path(path), _sentence(details, context))


def _sentence(details: ErrorDetails, context: dict[str, Any]) -> str:
    kind, got = details["type"], details.get("input")
    if kind == "literal_error":
        expected = str(context["expected"])
        choices = [part.strip("'") for part in expected.replace(" or ", ", ").split(", ")]
        hint = did_you_mean(got, choices) if isinstance(got, str) else f"write {expected}"
        return f"{got!r} is none of its values; {hint}"
    if kind == "string_pattern_mismatch":
        return f"{WORDS[context['pattern']]}, not {_show(got)}"
    if kind == "model_type" and got is None:
        return "must be a mapping of fields: write {} to take the defaults"
    if kind in _PLAIN:
        sentence = _PLAIN[kind].format(**context)
        return sentence if isinstance(got, (dict, list)) else f"{sentence}, not {_show(got)}"
    return details["msg"]


def _show(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def known_fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names that the struct at `path` knows, as they are written in a manifest."""
    here = _struct_at(model, path)
    return [str(name) for name in _fields(here)] if here is not None else []


def field_info(model: type[BaseModel], path: Sequence[str | int]) -> FieldInfo | None:
    """What the models say about the field at `path`."""
    here = _struct_at(model, path[:-1])
    return _fields(here).get(path[-1]) if here is not None else None


def _fields(model: type[BaseModel]) -> dict[str | int, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _struct_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    here: type[BaseModel] | None = model
    for step in path:
        if here is None:
            break
        if isinstance(step, str):  # elements of a list have the type that its field told
            field = _fields(here).get(step)
            here = struct_in(field.annotation) if field else None
    return here


def struct_in(annotation: Any) -> type[BaseModel] | None:
    """The struct inside `X`, `X | None`, `tuple[X, ...]`; None when there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := struct_in(arg))), None)
