"""Server-sent events of a streamed chat completion, line by line."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any, Final

DONE: Final = "[DONE]"
_LINE_END: Final = re.compile("\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event says.

    Attributes:
        text: Of the answer, or of the thoughts before it.
        finish_reason: Why the answer ended; None while it goes on.
        num_output_tokens: The service's count; None while it has not told.
        error: What the service says went wrong.
        is_last: Whether the stream says that nothing follows.
    """

    text: str = ""
    finish_reason: str | None = None
    num_output_tokens: int | None = None
    error: str | None = None
    is_last: bool = False


class LineReader:
    """Cuts bytes into lines: at what ends a line of an event stream, and nowhere else.

    Text may hold other characters that end lines elsewhere (U+2028).
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._ended_in_return = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that are whole with it, without their ends."""
        text = self._decoder.decode(data)
        if not text:
            return []
        if self._ended_in_return:
            text = text.removeprefix("\n")
        self._ended_in_return = text.endswith("\r")
        *lines, self._rest = _LINE_END.split(self._rest + text)
        return lines


class EventReader:
    """Puts the lines of one stream together."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def feed(self, line: str) -> Piece | None:
        """A line without its end; returns what is complete with it.

        Comments and fields other than `data` mean nothing here.

        Raises:
            ValueError: An event is no JSON object.
        """
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            return None
        data, self._data = "\n".join(self._data), []
        return read_data(data) if data.strip() else None


def read_data(data: str) -> Piece:
    """The data of one event.

    Raises:
        ValueError: It is no JSON object.
    """
    if data.strip() == DONE:
        return Piece(is_last=True)
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("an event is no JSON object")  # noqa: TRY004
    if content.get("error"):
        return Piece(error=error_message(content))
    choice = _first(content.get("choices"))
    delta = _object(choice.get("delta"))
    usage = _object(content.get("usage"))
    num_tokens = usage.get("completion_tokens")
    text = delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
    return Piece(
        text=str(text or ""),
        finish_reason=choice.get("finish_reason"),
        num_output_tokens=num_tokens if _is_count(num_tokens) else None,
    )


def error_message(content: Any) -> str:
    """The sentence of an error object, of whichever shape."""
    error = content.get("error", content) if isinstance(content, dict) else content
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or error)


def _is_count(value: Any) -> bool:
    # JSON's true is a whole number in Python.
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _first(choices: Any) -> dict[str, Any]:
    return _object(choices[0]) if isinstance(choices, list) and choices else {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
