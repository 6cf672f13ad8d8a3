"""What others say can be shown, written and added up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.telemetry.foreign import MAX_COUNT, MAX_SAID, count, printable, said

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(ANY_TEXT)
def test_what_was_said_is_one_short_line_that_utf8_can_write(text: str):
    line = said(text)
    line.encode("utf-8")
    assert line.isprintable()
    assert len(line) <= MAX_SAID


@given(ANY_TEXT)
def test_what_is_printable_keeps_its_lines(text: str):
    shown = printable(text)
    shown.encode("utf-8")
    assert len(shown) == len(text)
    assert all(
        found == meant or found == "\ufffd" for found, meant in zip(shown, text, strict=True)
    )
    assert shown.count("\n") == text.count("\n")
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("bad \ud800 here", "bad \ufffd here"),
        ("a\x1b[2Jb\x9b31m", "a\ufffd[2Jb\ufffd31m"),
        (" one\r\n\ttwo\u2028three ", "one two three"),
        ("\u202egpj.exe", "\ufffdgpj.exe"),
        ("é 猫 🐈", "é 猫 🐈"),
        ("", ""),
    ],
)
def test_lines(text: str, line: str):
    assert said(text) == line


def test_a_cut_is_seen():
    assert said("abcdef", 6) == "abcdef"
    assert said("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    "value", [True, None, -1, MAX_COUNT + 1, 10**400, 5.0, math.nan, math.inf, "5", [], {}]
)
def test_what_is_no_count(value: object):
    assert count(value) is None


@pytest.mark.parametrize("value", [0, 1, MAX_COUNT])
def test_counts(value: int):
    assert count(value) == value
