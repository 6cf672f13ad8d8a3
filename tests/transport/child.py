"""A process of a test: it answers requests, one line of JSON each, and ends with its parent.

    {"op": "state"} ─► stdin      stdout ─► {"used": 4096}

Whatever else writes to stdout (UCX does) is led to stderr.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from redserve.transport.base import PeerInfo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from redserve.transport.pool import Region

    Operation = Callable[..., Awaitable[Mapping[str, object]]]

PR_SET_PDEATHSIG = 1
FILL = 0x5A
MARK = 0x33


def fill(region: Region) -> None:
    """A pattern that is nowhere zero."""
    region.view[:] = FILL
    region.view[::4099] = MARK


def is_filled(region: Region) -> bool:
    """Whether it holds just this pattern."""
    marks = region.view[::4099]
    num_filled = int((region.view == FILL).sum())
    return bool((marks == MARK).all()) and num_filled == region.num_bytes - len(marks)


def peer_to_json(peer: PeerInfo) -> dict[str, Any]:
    return {**asdict(peer), "metadata": peer.metadata.hex()}


def peer_from_json(data: Mapping[str, Any]) -> PeerInfo:
    return PeerInfo(**{**data, "metadata": bytes.fromhex(data["metadata"])})


def arguments() -> dict[str, Any]:
    """The one argument of the command; from here on this process dies when its parent does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parsed: dict[str, Any] = json.loads(sys.argv[1])
    return parsed


def own_stdout() -> TextIO:
    """Stdout for us alone; what others write there goes to stderr."""
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return ours


async def answer(out: TextIO, hello: Mapping[str, object], **operations: Operation) -> None:
    """Say that this process is ready, and serve requests until the parent hangs up."""
    requests = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    _write(out, hello)
    while line := await requests.readline():
        request = json.loads(line)
        _write(out, await operations[request.pop("op")](**request))


def _write(out: TextIO, message: Mapping[str, object]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()
