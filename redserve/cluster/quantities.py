"""Quantities as the API server writes them back.

What is applied is compared with what is stored; `1024Mi` would look like a foreign edit of `1Gi`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from redserve.spec.quantity import Quantity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

_DECIMAL: Final = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
_LARGEST_DECIMAL: Final = 18
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_KIBI: Final = 1024


def canonical(quantity: Quantity) -> str:
    """The one way in which Kubernetes writes an amount in its family of units."""
    if re.search(r"[eE][0-9+-]", quantity.text):
        return _with_exponent(quantity)
    # Below 1 Ki it switches to plain numbers, because binary units have no fractions.
    if quantity.text.endswith("i") and quantity.value >= _KIBI:
        return _binary(quantity.ceil)
    return _decimal(quantity.value)


def canonical_amounts(amounts: Mapping[str, Any]) -> dict[str, Any]:
    """Each of `limits` or `requests`; what is no quantity is left for the API server to refuse."""
    return {name: _canonical_or_same(amount) for name, amount in amounts.items()}


def _canonical_or_same(raw: Any) -> Any:
    try:
        return canonical(raw if isinstance(raw, Quantity) else Quantity.parse(raw))
    except ValueError:
        return raw


def _binary(number: int) -> str:
    power = 0
    while number and number % _KIBI == 0 and power < len(_BINARY) - 1:
        number, power = number // _KIBI, power + 1
    return f"{number}{_BINARY[power]}"


def _decimal(value: Fraction) -> str:
    mantissa, exponent = _shortest(value)
    suffix = _DECIMAL.get(exponent, "E")
    return f"{mantissa}{suffix}"


def _with_exponent(quantity: Quantity) -> str:
    mantissa, exponent = _shortest(quantity.value)
    return f"{mantissa}e{exponent}" if exponent else str(mantissa)


def _shortest(value: Fraction) -> tuple[int, int]:
    """Mantissa and power of ten, a multiple of three; nothing is finer than a billionth."""
    nano = value * 10**9
    mantissa, exponent = -(-nano.numerator // nano.denominator), -9
    if mantissa == 0:
        return 0, 0
    while mantissa % 1000 == 0 and exponent < _LARGEST_DECIMAL:
        mantissa, exponent = mantissa // 1000, exponent + 3
    return mantissa, exponent
