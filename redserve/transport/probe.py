"""A tensor that exists only to be read: what a pair of processes can do is measured with it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np

from redserve.errors import TensorGone

if TYPE_CHECKING:
    from redserve.transport.base import Descriptor
    from redserve.transport.lease_table import LeaseTable
    from redserve.transport.pool import Region

PROBE_BYTES: Final = 32 << 20
"""Size that is tried first: large enough that starting costs nothing."""
_PREFIX: Final = "redserve/probe/"
_NUMBERS: Final = itertools.count(1)


def probe_key(num_bytes: int) -> str:
    """What to prepare at a producer for a probe of this size."""
    return f"{_PREFIX}{num_bytes}"


def is_probe(key: str) -> bool:
    """Whether a key asks for a probe."""
    return key.startswith(_PREFIX)


def prepare_probe(table: LeaseTable, key: str, consumer: str) -> Descriptor:
    """Offer and lease a probe; it goes with its lease.

    Raises:
        TensorGone: The key names no sensible size.
        Overloaded: The pool has no room for it now.
    """
    digits = key.removeprefix(_PREFIX)
    if not digits.isdecimal() or len(digits) > len(str(PROBE_BYTES)):
        raise TensorGone(f"{key!r} is no probe: name its bytes")
    num_bytes = int(digits)
    if not 0 < num_bytes <= PROBE_BYTES:
        raise TensorGone(f"a probe has at most {PROBE_BYTES} bytes, not {num_bytes}")
    region = table.pool.alloc(num_bytes)
    own_key = f"{_PREFIX}{num_bytes}/{next(_NUMBERS)}"
    try:
        _fill(region)
        table.offer(own_key, region, lambda *_: _give_up(table, own_key, region))
        return table.prepare(own_key, consumer)
    except BaseException:
        table.withdraw(own_key)
        region.free()
        raise


def _fill(region: Region) -> None:
    """Bytes that differ from page to page; those of device memory are as they are."""
    if region.pool.slab.host is not None:
        region.view[:] = 0x5A
        marks = region.view[::4096]
        marks[:] = np.arange(len(marks)) % 251


def _give_up(table: LeaseTable, key: str, region: Region) -> None:
    table.withdraw(key)
    region.free()
