"""What every struct of a manifest has in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict, WithJsonSchema
from pydantic import model_validator as pydantic_model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from pydantic.config import JsonDict

Switch = Literal["Enabled", "Disabled"]
"""On or off, as a word, so that a third choice can come later."""

AutoSwitch = Literal["Auto", "Enabled", "Disabled"]
"""A switch that looks at its surroundings first."""

Lax = Strict(strict=False)
"""Lets a tuple be written as a YAML list; the elements stay strict."""

BY_NAME: Final[JsonDict] = {
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
}
"""For a list whose elements are known by their name: the API server refuses a name twice, and
several writers may share the list."""

AS_SET: Final[JsonDict] = {"x-kubernetes-list-type": "set"}
"""For a list of plain values that may not repeat one."""

_INT_OR_PERCENT: Final = r"^([0-9]{1,4}|(100|[0-9]{1,2})%)$"


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition over several fields of one struct.

    Attributes:
        message: What is wrong and what to write instead.
        holds: The condition.
        cel: The same condition for the API server. It must also stand before the defaults of the
            struct's own structs are filled in. None where the API server sees to it without CEL:
            lists that are `BY_NAME` or `AS_SET`, metadata.
        field: Where to point, relative to the struct (a camelCase path); None is the struct.
    """

    message: str
    holds: Callable[[Any], bool]
    cel: str | None = None
    field: str | None = None

    def to_cel(self) -> dict[str, str]:
        """An entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel or "true", "message": self.message}
        return entry | ({"fieldPath": f".{self.field}"} if self.field else {})


class Spec(BaseModel):
    """A struct of the manifest: frozen, strict, nothing unknown, camelCase outside."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @pydantic_model_validator(mode="before")
    @classmethod
    def _nothing_is_absent(cls, raw: object) -> object:
        """A field without a value is as if it were not there, as for the API server."""
        if not isinstance(raw, dict) or None not in raw.values():
            return raw
        optional = {
            field.alias or name
            for name, field in cls.model_fields.items()
            if not field.is_required()
        }
        return {name: v for name, v in raw.items() if v is not None or name not in optional}

    @pydantic_model_validator(mode="after")
    def _keep_the_rules(self) -> Self:
        for rule in self.RULES:
            if not rule.holds(self):
                raise PydanticCustomError(
                    "rule", "{sentence}", {"sentence": rule.message, "field": rule.field or ""}
                )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        """Carry the rules into the schema, for the CustomResourceDefinition."""
        made = handler.resolve_ref_schema(handler(schema))
        cel = [rule.to_cel() for rule in cls.RULES if rule.cel is not None]
        if cel:
            made["x-kubernetes-validations"] = cel
        return made


def _int_or_text(raw: object) -> object:
    if isinstance(raw, bool) or not isinstance(raw, (int, str)):
        raise PydanticCustomError("int_or_text", 'must be a number or a text such as "25%"')
    return str(raw)


def _int_or_percent(text: str) -> str:
    if re.fullmatch(_INT_OR_PERCENT, text) is None:
        raise PydanticCustomError("int_or_percent", 'must be a number such as 1 or a share "25%"')
    return text


IntOrPercent = Annotated[
    str,
    AfterValidator(_int_or_percent),
    BeforeValidator(_int_or_text),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": 9999,
            "maxLength": 4,
            "pattern": _INT_OR_PERCENT,
        }
    ),
]
"""A count of pods or a share of them, kept as text."""


def unique_by(key: Callable[[Any], Hashable], values: Iterable[Any]) -> bool:
    """Whether no two of `values` have the same key."""
    keys = [key(value) for value in values]
    return len(keys) == len(set(keys))
