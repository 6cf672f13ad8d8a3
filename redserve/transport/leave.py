"""How a process that moved tensors ends."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Final, NoReturn

from redserve.transport.nixl.endpoint import close_readers

_CLOSE_TIMEOUT_S: Final = 2.0


def leave(code: int) -> NoReturn:
    """End the process at once; the last thing that it does.

    The interpreter does not take itself apart: with torch in memory that is seconds of work for
    nothing, and an agent that was not closed must not be destroyed, as it would be then. With
    transfers under way the process at the other end would not survive it, and without any this one
    would end by a signal. So whatever must be done before the end is done before this is called;
    functions that were registered for the end of the interpreter are not.

    Reads that were not waited for are waited for here, for a moment: not even the kernel's way of
    ending is harmless in the middle of them, as UCX over TCP aborts a process that finds its reader
    gone while it sends.
    """
    close_readers(_CLOSE_TIMEOUT_S)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever listened is gone
            stream.flush()
    os._exit(code)
