"""How a process that moved tensors ends."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

from redserve.transport.nixl.endpoint import any_open, close_readers

_CLOSE_TIMEOUT_S: Final = 2.0


def leave(code: int) -> NoReturn:
    """End the process; the last thing that it does.

    An agent that was not closed must not be destroyed, as the interpreter would do at its end: with
    transfers under way the process at the other end would not survive it, and without any this
    one would end by a signal. Reads that were not waited for are waited for here, for a moment: not
    even the kernel's way of ending is harmless in the middle of them, as UCX over TCP aborts a
    process that finds its reader gone while it sends.
    """
    close_readers(_CLOSE_TIMEOUT_S)
    if any_open():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)
