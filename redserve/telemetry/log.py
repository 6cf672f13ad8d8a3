"""Structured logs on stderr. A log line never carries what a user sent or got.

Write `log.info("encoded", request_id=..., num_rows=...)`: a fixed event, then figures and ids.
Values under names that hold content are replaced by their length, bytes by their number, and
tracebacks come without local variables. In text, which people read on terminals, a value can be no
more than text: what moves the cursor, colours, rings or turns the direction of reading is escaped.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.typing import FilteringBoundLogger, Processor

CONTENT_KEYS: Final = frozenset(
    {
        "authorization",
        "body",
        "content",
        "data",
        "image",
        "image_url",
        "messages",
        "output",
        "parts",
        "pictures",
        "prompt",
        "replacement_text",
        "text",
        "token_ids",
        "tokens",
    }
)
"""Keys whose values may be what a user sent or got."""

MAX_VALUE_LENGTH: Final = 500
"""Longest string value of a line: content that slipped in elsewhere does not fill the log."""

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _StderrLogger:
    """Writes to whatever `sys.stderr` is now: tests and daemons replace it."""

    __slots__ = ()

    def msg(self, message: str) -> None:
        # One write, so that lines of several threads do not mix.
        sys.stderr.write(message + "\n")
        sys.stderr.flush()

    debug = info = warning = error = critical = fatal = exception = log = msg


class _StderrHandler(logging.Handler):
    """The same for libraries that use the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _StderrLogger().msg(self.format(record))
        except Exception:  # logging's own contract: a broken record must not break the program
            self.handleError(record)


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Structlog processor: replaces content by its size."""
    for key, value in event.items():
        if key in CONTENT_KEYS and value is not None and not isinstance(value, bool | int | float):
            event[key] = f"<{_size(value)} hidden>"
        elif isinstance(value, bytes | bytearray | memoryview):
            event[key] = f"<{len(value)} bytes>"
        elif isinstance(value, str) and len(value) > MAX_VALUE_LENGTH and key != "exception":
            event[key] = f"{value[:MAX_VALUE_LENGTH]}… ({len(value)} characters)"
    return event


def printable(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Structlog processor for text: escapes what terminals obey, and line ends but tracebacks'."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n" if key == "exception" else ""
            event[key] = "".join(
                char if char.isprintable() or char in kept else _escaped(char) for char in value
            )
    return event


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _size(value: object) -> int:
    return len(value) if hasattr(value, "__len__") else len(str(value))


def _text() -> list[Processor]:
    console = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    return [printable, console]


def configure(level: str, fmt: str, process_name: str) -> None:
    """Set up logs of this process, once, in its `__main__`.

    Args:
        level: "debug", "info", "warning" or "error".
        fmt: "text" for people, "json" for machines (one object per line).
        process_name: Goes into every line as `process`; nothing when empty.
    """
    number = _LEVELS[level]

    def add_process(
        _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if process_name:
            event["process"] = process_name
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_process,
        structlog.processors.format_exc_info,
        redact,
    ]
    # JSON escapes by itself.
    rendering = [structlog.processors.JSONRenderer()] if fmt == "json" else _text()
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _StderrLogger(),
        cache_logger_on_first_use=False,
    )
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known, _StderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    # Libraries are quieter than we are: their info is rarely about this service.
    root.setLevel(max(number, logging.WARNING))


def get_logger() -> FilteringBoundLogger:
    """A logger; may be called at import time, before `configure`."""
    if not structlog.is_configured():
        # structlog's own default is stdout, which belongs to the command line's answers.
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                redact,
                *_text(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=lambda *_: _StderrLogger(),
            cache_logger_on_first_use=False,
        )
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger
