"""Server-sent events of a streamed chat completion, line by line."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from redserve.telemetry.foreign import count

MAX_EVENT_LENGTH: Final = 2**20
"""Characters of one event, at most: a whole answer fits, and a stream without an end does not."""
DONE: Final = "[DONE]"
_LINE_END: Final = re.compile("\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event says.

    Attributes:
        text: Of the answer, or of the thoughts before it.
        finish_reason: Why the answer ended; None while it goes on.
        num_output_tokens: The service's count; None while it has not told, or tells nonsense.
        error: What the service says went wrong, as it says it.
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
        # In pieces: a line that comes byte by byte must not be copied with each of them.
        self._rest: list[str] = []
        self._rest_length = 0
        self._ended_in_return = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that are whole with it, without their ends.

        Raises:
            ValueError: A line does not end within `MAX_EVENT_LENGTH`.
        """
        text = self._decoder.decode(data)
        if not text:
            return []
        if self._ended_in_return:
            text = text.removeprefix("\n")
        self._ended_in_return = text.endswith("\r")
        *lines, rest = _LINE_END.split(text)
        if lines:
            lines[0] = "".join((*self._rest, lines[0]))
            self._rest.clear()
            self._rest_length = 0
        self._rest.append(rest)
        self._rest_length += len(rest)
        if self._rest_length > MAX_EVENT_LENGTH:
            raise ValueError(f"a line has more than {MAX_EVENT_LENGTH} characters")
        return lines


class EventReader:
    """Puts the lines of one stream together."""

    def __init__(self) -> None:
        self._data: list[str] = []
        self._length = 0

    def feed(self, line: str) -> Piece | None:
        """A line without its end; returns what is complete with it.

        Comments and fields other than `data` mean nothing here.

        Raises:
            ValueError: An event is no JSON object, or has more than `MAX_EVENT_LENGTH` characters.
        """
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
                self._length += len(self._data[-1]) + 1
            if self._length > MAX_EVENT_LENGTH:
                raise ValueError(f"an event has more than {MAX_EVENT_LENGTH} characters")
            return None
        data, self._data, self._length = "\n".join(self._data), [], 0
        return read_data(data) if data.strip() else None


def read_data(data: str) -> Piece:
    """The data of one event.

    Raises:
        ValueError: It is no JSON object.
    """
    if data.strip() == DONE:
        return Piece(is_last=True)
    try:
        return _piece_of(json.loads(data))
    except RecursionError as error:
        raise ValueError("an event is nested too deeply") from error


def error_message(content: Any) -> str:
    """The sentence of an error object, of whichever shape, as it stands there.

    Raises:
        RecursionError: It is nested deeply.
    """
    error = content.get("error", content) if isinstance(content, dict) else content
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or error)


def _piece_of(content: Any) -> Piece:
    if not isinstance(content, dict):
        raise ValueError("an event is no JSON object")  # noqa: TRY004
    if content.get("error"):
        return Piece(error=error_message(content))
    choice = _first(content.get("choices"))
    delta = _object(choice.get("delta"))
    usage = _object(content.get("usage"))
    text = delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
    return Piece(
        text=str(text or ""),
        finish_reason=choice.get("finish_reason"),
        num_output_tokens=count(usage.get("completion_tokens")),
    )


def _first(choices: Any) -> dict[str, Any]:
    return _object(choices[0]) if isinstance(choices, list) and choices else {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
