"""How many requests this process can have under way."""

from __future__ import annotations

import errno
import resource
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SPARE_FILES: Final = 64
"""Open files that are no connections of requests, at most."""
OWN_LIMITS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
)
"""Errors of a connection that tell of this machine, not of the service: no files, ports or memory
are left."""


def raise_file_limit(num_files: int) -> int:
    """Let this process open so many files, or as many as it may ask for; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= num_files:
        return num_files
    wanted = num_files if hard == resource.RLIM_INFINITY else min(num_files, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a system that allows less than it says
        return soft
    return wanted


def room_for_connections(most: int) -> int:
    """Of so many connections, how many this process can open at once; 1 at least.

    Raises the limit of open files where it may.
    """
    num_files = raise_file_limit(most + SPARE_FILES)
    return max(1, min(most, num_files - SPARE_FILES))


def own_limit(error: BaseException) -> int | None:
    """The number of the error below this one that is in `OWN_LIMITS`; None if there is none."""
    for cause in _causes(error, set()):
        if isinstance(cause, OSError) and cause.errno in OWN_LIMITS:
            return cause.errno
    return None


def _causes(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    below = [error.__cause__, error.__context__]
    if isinstance(error, BaseExceptionGroup):
        below += error.exceptions
    for one in below:
        if one is not None:
            yield from _causes(one, seen)
