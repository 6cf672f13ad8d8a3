"""A tensor that exists only to be read: what a pair of processes can do is measured with it."""

from __future__ import annotations

import asyncio
import functools
import itertools
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import numpy as np

from redserve.errors import Overloaded, TensorGone
from redserve.transport.buffer import write

if TYPE_CHECKING:
    from redserve.transport.base import Descriptor
    from redserve.transport.lease_table import LeaseTable
    from redserve.transport.pool import Region

PROBE_BYTES: Final = 32 << 20
"""Size that is tried first: large enough that starting costs nothing."""
RETRY_AFTER_S: Final = 1.0
"""When another probe is likely to have been read."""
_PREFIX: Final = "redserve/probe/"
_FIELD: Final = "tensor_key"
_NUMBERS: Final = itertools.count(1)
_LATEST: Final[WeakKeyDictionary[LeaseTable, Region]] = WeakKeyDictionary()
"""The last probe of each table."""


def probe_key(num_bytes: int) -> str:
    """What to prepare at a producer for a probe of this size."""
    return f"{_PREFIX}{num_bytes}"


def is_probe(key: str) -> bool:
    """Whether a key asks for a probe."""
    return key.startswith(_PREFIX)


def is_taken(error: Overloaded) -> bool:
    """Whether a producer refused a probe because of another one, and not for want of room."""
    return error.field == _FIELD


async def prepare_probe(table: LeaseTable, key: str, consumer: str) -> Descriptor:
    """Offer and lease a probe; it goes with its lease.

    One at a time for each table: whoever asks need not know a key, and the pool is there for
    requests. Its bytes are written in a thread, since they take as long as many answers. Belongs
    to the event loop of the table's server.

    Raises:
        TensorGone: The key names no sensible size.
        Overloaded: There is another one (see `is_taken`), or the pool has no room for it now.
    """
    num_bytes = _size(key)
    table.reap()
    latest = _LATEST.get(table)
    if latest is not None and not latest.gone:
        raise Overloaded("somebody else reads a probe", field=_FIELD, retry_after_s=RETRY_AFTER_S)
    region = _LATEST[table] = table.pool.alloc(num_bytes)
    own_key = f"{_PREFIX}{num_bytes}/{next(_NUMBERS)}"
    making = asyncio.ensure_future(asyncio.to_thread(_make, table, own_key, region))
    try:
        # Shielded: a thread writes on when its caller has gone, so the room must stay.
        await asyncio.shield(making)
        return table.prepare(own_key, consumer)
    except BaseException:
        making.add_done_callback(functools.partial(_undo, table, own_key, region))
        raise


def _make(table: LeaseTable, key: str, region: Region) -> None:
    _fill(region)
    table.offer(key, region, lambda *_: _give_up(table, key, region))


def _undo(table: LeaseTable, key: str, region: Region, made: asyncio.Future[None]) -> None:
    if not made.cancelled():
        made.exception()  # its caller has it, or has gone
    _give_up(table, key, region)


def _size(key: str) -> int:
    digits = key.removeprefix(_PREFIX)
    if not digits.isdecimal() or len(digits) > len(str(PROBE_BYTES)):
        raise TensorGone(f"{key!r} is no probe: name its bytes")
    num_bytes = int(digits)
    if not 0 < num_bytes <= PROBE_BYTES:
        raise TensorGone(f"a probe has at most {PROBE_BYTES} bytes, not {num_bytes}")
    return num_bytes


def _fill(region: Region) -> None:
    """Bytes that differ from page to page; nothing of what was there before is left to be read."""
    data = np.full(region.num_bytes, 0x5A, np.uint8)
    marks = data[::4096]
    marks[:] = np.arange(len(marks)) % 251
    write(region, 0, data.data)


def _give_up(table: LeaseTable, key: str, region: Region) -> None:
    table.withdraw(key)
    region.free()
