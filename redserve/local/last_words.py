"""What a process that ended wanted to say, out of the lines that it wrote."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRACEBACK: Final = "Traceback (most recent call last):"
_TEXT_REFUSAL: Final = re.compile(r"\bcannot start\b.*?\breason=(?P<reason>\S+)\s+why=(?P<why>.+)$")


@dataclass(frozen=True, slots=True)
class RefusedStart:
    """Why a service cannot start as it was told to, by its "cannot start" log line.

    Attributes:
        reason: UPPER_SNAKE word of the error's type.
        why: The sentence; it begins with the name of a setting where one is to blame.
    """

    reason: str
    why: str


def refusal_in(lines: Sequence[str]) -> RefusedStart | None:
    """The last "cannot start" of a service's log, as text or JSON; None when there is none."""
    for line in reversed(lines):
        found = _json_refusal(line) or _text_refusal(line)
        if found is not None:
            return found
    return None


def conclusion(lines: Sequence[str]) -> str:
    """The line that says most about an end; empty when nothing was written.

    Of a traceback it is the line with the error, not the warnings that an interpreter adds while
    it goes down; otherwise it is the last line that has a word in it.
    """
    lines = [text for line in lines for text in _unfolded(line)]
    begins = [number for number, line in enumerate(lines) if line.strip() == _TRACEBACK]
    if begins:
        after = lines[begins[-1] + 1 :]
        error = next((line for line in after if line and not line[0].isspace()), None)
        if error is not None:
            return error.strip()
    return next(
        (line.strip() for line in reversed(lines) if any(map(str.isalnum, line))),
        "",
    )


def _unfolded(line: str) -> list[str]:
    """A line, or the traceback inside a JSON log line."""
    exception = _json(line).get("exception")
    return exception.splitlines() if isinstance(exception, str) else [line]


def _json_refusal(line: str) -> RefusedStart | None:
    said = _json(line)
    if said.get("event") != "cannot start":
        return None
    return RefusedStart(str(said.get("reason", "UNKNOWN")), _one_line(str(said.get("why", ""))))


def _text_refusal(line: str) -> RefusedStart | None:
    match = _TEXT_REFUSAL.search(line)
    if match is None:
        return None
    why = match["why"].strip()
    if why[0] in "'\"":  # values with blanks are written as Python literals
        # If more follows on the line, better too much than nothing.
        with contextlib.suppress(SyntaxError, ValueError):
            why = str(ast.literal_eval(why))
    why = why.replace("\\n", " ")  # as text logs write the ends of lines
    return RefusedStart(match["reason"], _one_line(why))


def _json(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _one_line(text: str) -> str:
    return " ".join(text.split())
