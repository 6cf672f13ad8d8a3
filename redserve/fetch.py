"""`python -m redserve.fetch`: put a checkpoint into a volume, for pods that may not download.

Settings: `FetchSettings`; a token, if the hub wants one, in HF_TOKEN as its client reads it. The
outcome goes to the report file, which Kubernetes shows as the container's termination message: the
resolved commit, or the sentence that says why not.

Exit codes: 0 done, 1 try again (the hub cannot be reached), 2 it can never work as told.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redserve.errors import ConfigError, RedServeError
from redserve.modeling.checkpoint import resolve
from redserve.spec.settings import FetchSettings
from redserve.telemetry.log import configure, get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger()

_MAX_REPORT_BYTES: Final = 4096
"""Kubernetes keeps no more of a termination message."""
_SNAPSHOTS: Final = "snapshots"


def main() -> int:
    """Fetch what the environment names; returns the exit code."""
    try:
        settings = FetchSettings.from_env()
    except ConfigError as error:
        configure("info", "text", "fetch")
        return _fail(error, "")
    configure(settings.log_level, settings.log_format, "fetch")
    try:
        commit = fetch(settings)
    except RedServeError as error:
        return _fail(error, settings.report_file)
    log.info("fetched", uri=settings.model_uri, commit=commit, cache_dir=settings.cache_dir)
    _report(settings.report_file, commit)
    return 0


def fetch(settings: FetchSettings, resolver: Callable[..., Path] = resolve) -> str:
    """Download what is missing.

    Args:
        settings: What and where to.
        resolver: As `redserve.modeling.checkpoint.resolve`; tests bring their own.

    Returns:
        The commit that was fetched; empty when the source has no commits (a folder).

    Raises:
        ConfigError, ModelNotFound, UnsupportedModel, Unavailable: As `checkpoint.resolve`.
    """
    if not settings.model_uri:
        raise ConfigError("name the checkpoint", field="REDSERVE_FETCH_MODEL_URI")
    folder = resolver(
        settings.model_uri,
        settings.model_revision or None,
        Path(settings.cache_dir) if settings.cache_dir else None,
        base_dir=Path.cwd(),
        weights=settings.weights,
    )
    # The hub's cache keeps each commit in a folder of that name.
    return folder.name if folder.parent.name == _SNAPSHOTS else ""


def _fail(error: RedServeError, report_file: str) -> int:
    log.error("cannot fetch", reason=error.reason, why=str(error))
    _report(report_file, str(error))
    return 1 if error.retryable else 2


def _report(report_file: str, text: str) -> None:
    if not report_file:
        return
    try:
        Path(report_file).write_bytes(text.encode()[:_MAX_REPORT_BYTES])
    except OSError as error:
        log.warning("the report cannot be written", file=report_file, why=str(error))


if __name__ == "__main__":
    sys.exit(main())
