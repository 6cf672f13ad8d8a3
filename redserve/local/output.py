"""What children write: every line into a file of bounded size and to whoever listens."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_LINE_BYTES: Final = 16 * 1024
"""Longer lines are broken here."""
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
"""A full file becomes the old one (`.1`), and a new one begins."""

NUM_KEPT_LINES: Final = 200
"""Lines of a run that are remembered: a traceback with its causes fits."""


class OutputSink:
    """Takes the bytes of one process over all its runs.

    Args:
        path: The log file; emptied now.
        on_line: Called with each whole line, without its end.
    """

    def __init__(self, path: Path, on_line: Callable[[str], None]) -> None:
        self._path = path
        self._on_line = on_line
        self._file = path.open("wb", buffering=0)
        self._num_bytes = 0
        self._rest = b""
        self._last: deque[str] = deque(maxlen=NUM_KEPT_LINES)

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines of this run."""
        return tuple(self._last)

    def begin_run(self) -> None:
        """The process starts, or starts again: what an earlier run wrote is not its word."""
        self._last.clear()

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._emit(line)
        while len(self._rest) > MAX_LINE_BYTES:
            self._emit(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]

    def end_of_run(self) -> None:
        """The process ended: a line without an end is one too."""
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _emit(self, line: bytes) -> None:
        try:
            if self._num_bytes + len(line) > MAX_FILE_BYTES:
                self._begin_anew()
            self._file.write(line + b"\n")
        except OSError as error:  # a full disk must not take the service down
            self._on_line(f"(not in {self._path}: {error.strerror})")
        self._num_bytes += len(line) + 1
        text = line.decode("utf-8", errors="replace").rstrip("\r")
        self._last.append(text)
        self._on_line(text)

    def _begin_anew(self) -> None:
        # Made first: a file that could not be made must not cost the one that there is.
        made = self._path.with_name(f"{self._path.name}.new")
        fresh = made.open("wb", buffering=0)
        try:
            with suppress(FileNotFoundError):
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            made.replace(self._path)
        except OSError:
            fresh.close()
            raise
        self._file.close()
        self._file = fresh
        self._num_bytes = 0
