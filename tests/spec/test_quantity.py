from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.spec.quantity import Quantity

KNOWN = [
    ("512Mi", 512 * 1024**2),
    ("1Gi", 1024**3),
    ("4", 4),
    (4, 4),
    ("500m", Fraction(1, 2)),
    ("0.5", Fraction(1, 2)),
    (".5Ki", 512),
    ("2k", 2000),
    ("1e3", 1000),
    ("1E3", 1000),
    ("1E", 10**18),
    ("1Ei", 1024**6),
    ("3M", 3_000_000),
    ("100u", Fraction(1, 10_000)),
    ("0", 0),
]


@pytest.mark.parametrize(("text", "value"), KNOWN, ids=[str(text) for text, _ in KNOWN])
def test_reads_what_kubernetes_reads(text: str | int, value: Fraction) -> None:
    assert Quantity.parse(text).value == value


@pytest.mark.parametrize(
    "text", ["", "Mi", "-1", "1 Mi", "1MB", "1mi", "one", "1.2.3", "NaN", "inf", "0x10", "9" * 40]
)
def test_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity: write a number and a unit"):
        Quantity.parse(text)


def test_a_truth_value_is_none() -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        Quantity.parse(True)


def test_rounds_on_demand() -> None:
    half = Quantity.parse("2500m")
    assert (half.floor, half.ceil, half.num_bytes) == (2, 3, 3)


@given(st.integers(0, 10**9), st.sampled_from(["", "Ki", "Mi", "Gi", "k", "M", "m"]))
def test_text_is_kept_and_value_exact(number: int, unit: str) -> None:
    scale = {"": 1, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "k": 1000, "M": 10**6}
    quantity = Quantity.parse(f"{number}{unit}")
    assert str(quantity) == f"{number}{unit}"
    assert quantity.value == number * scale.get(unit, Fraction(1, 1000))
