"""Kubernetes quantities: `512Mi`, `1Gi`, `4`, `500m`; exact, never a float."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

PATTERN: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
"""Quantities as Kubernetes writes them, without a sign."""
MAX_CHARACTERS: Final = 32
MAX_INTEGER: Final = 2**53
"""Largest quantity that may be written without quotes: the API server's bounds are floats."""

_SHAPE: Final = re.compile(PATTERN.removeprefix("^").removesuffix("$"))
_SCALES: Final = {
    "": Fraction(1),
    **{f"{letter}i": Fraction(1024**n) for n, letter in enumerate("KMGTPE", start=1)},
    **{letter: Fraction(1000**n) for n, letter in enumerate("kMGTPE", start=1)},
    **{letter: Fraction(1, 1000**n) for n, letter in enumerate("mun", start=1)},
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A non-negative amount of something: bytes, cores, devices.

    Attributes:
        text: As it was written.
        value: The exact amount in units of one.
    """

    text: str
    value: Fraction

    @classmethod
    def parse(cls, raw: str | int) -> Quantity:
        """Read a quantity.

        Raises:
            ValueError: It is none, or it is negative; the message says what to write.
        """
        text = str(raw)
        match = _SHAPE.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
        if match is None or isinstance(raw, bool) or (raw != text and int(raw) > MAX_INTEGER):
            raise ValueError(f"{raw!r} is no quantity: write a number and a unit, such as 512Mi")
        suffix = match[3] or ""
        number = Fraction(match[1].removesuffix("."))
        known = _SCALES.get(suffix)
        scale = Fraction(10) ** int(suffix[1:]) if known is None else known
        return cls(text, number * scale)

    @property
    def num_bytes(self) -> int:
        """The amount in whole bytes, rounded up."""
        return self.ceil

    @property
    def ceil(self) -> int:
        """The least whole number that is not smaller."""
        return -(-self.value.numerator // self.value.denominator)

    @property
    def floor(self) -> int:
        """The largest whole number that is not larger."""
        return self.value.numerator // self.value.denominator

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": MAX_INTEGER,
            "maxLength": MAX_CHARACTERS,
            "pattern": PATTERN,
        }


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Bound for a pydantic field, `Annotated[Quantity, AtLeast("1Mi")]`."""

    minimum: str

    def __call__(self, quantity: Quantity) -> Quantity:
        """Pass the quantity on or refuse it."""
        if quantity.value < Quantity.parse(self.minimum).value:
            raise PydanticCustomError(
                "quantity", f"must be at least {self.minimum}, not {quantity.text}"
            )
        return quantity

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            self, handler(source), serialization=core_schema.to_string_ser_schema()
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Carry the bound into the schema, for the CustomResourceDefinition."""
        rule = f"{cel_quantity('self')}.compareTo(quantity('{self.minimum}')) >= 0"
        made = handler(schema)
        made["x-kubernetes-validations"] = [
            {"rule": rule, "message": f"must be at least {self.minimum}"}
        ]
        return made


def cel_quantity(expression: str) -> str:
    """A CEL expression that names a quantity field, as a value that CEL can compare."""
    return f"quantity(string({expression}))"


def _validate(raw: object) -> Quantity:
    if isinstance(raw, Quantity):
        return raw
    if isinstance(raw, float):
        raise PydanticCustomError("quantity", f'quote fractions: write "{raw}"')
    if isinstance(raw, bool) or not isinstance(raw, (str, int)):
        raise PydanticCustomError("quantity", "must be a quantity such as 512Mi, 1Gi or 4")
    try:
        return Quantity.parse(raw)
    except ValueError as error:
        raise PydanticCustomError("quantity", "{why}", {"why": str(error)}) from None
