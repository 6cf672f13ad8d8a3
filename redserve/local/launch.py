"""`python -m redserve.local.launch PARENT MODULE`: runs a service that dies with its parent.

The supervisor may be killed in a way that it cannot answer (kill -9, out of memory). What it
started must not stay behind and keep ports and memory.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def tie_to_parent(parent: int) -> None:
    """Let this process be killed when process `parent`, which started it, is gone.

    On Linux the kernel does it. Elsewhere a thread waits for the end of standard input, which the
    parent holds open.
    """
    if sys.platform == "linux":
        _ask_the_kernel()
    else:
        watch_stdin()
    # It may have died before we asked.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def watch_stdin() -> None:
    """Kill this process at the end of standard input, from a daemon thread."""

    def wait_for_end() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_end, name="lifeline", daemon=True).start()


def _ask_the_kernel() -> None:
    import ctypes  # not needed elsewhere

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then be the module."""
    parent, module = arguments
    tie_to_parent(int(parent))
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
