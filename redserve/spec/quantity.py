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

PATTERN: Final = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""What the API server accepts as a quantity."""

_SHAPE: Final = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?"
)
_MAX_CHARACTERS: Final = 32
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
        text = str(raw).strip()
        match = _SHAPE.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
        if match is None or isinstance(raw, bool):
            raise ValueError(f"{raw!r} is no quantity: write a number and a unit, such as 512Mi")
        suffix = match["suffix"] or ""
        number = Fraction(match["number"])
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
            "pattern": PATTERN,
        }


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Bound for a pydantic field: the quantity must not be smaller than `minimum`."""

    minimum: str

    def __call__(self, quantity: Quantity) -> Quantity:
        """Pass the quantity on or refuse it."""
        if quantity.value < Quantity.parse(self.minimum).value:
            raise PydanticCustomError(
                "quantity", f"must be at least {self.minimum}, not {quantity.text}"
            )
        return quantity


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
