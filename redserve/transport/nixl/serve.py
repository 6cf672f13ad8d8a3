"""The process that others read a pool from: `python -m redserve.transport.nixl.serve ...`.

It maps the pool, registers it, says how to read from it, and then does nothing but let UCX send.
See `redserve.transport.nixl.read_server` for why it is a process of its own.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Final, NoReturn

from redserve.transport.nixl.library import Agent, AgentError
from redserve.transport.slab import SharedSlab

_PR_SET_PDEATHSIG: Final = 1


def main(parent: int, descriptor: int, num_bytes: int, hello: int, name: str) -> NoReturn:
    """Serve until the end of the standard input, or of whoever started this.

    Args:
        parent: Process id of whoever started this.
        descriptor: Of the pool.
        num_bytes: Size of the pool.
        hello: File descriptor for one line of JSON, `{"metadata": BASE64, "address": INTEGER}` or
            `{"error": TEXT}`, and then for what comes by the standard input: that this lives.
        name: Of the agent.
    """
    # Whoever started this decides when it ends, also when a terminal signals the whole group.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # A process that is stopped does not see the end of its input, and must not outlive its parent.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)
    # UCX aborts this process when a reader dies: no reason to write embeddings to a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = 0
    try:
        agent = Agent(name, SharedSlab(num_bytes, descriptor), serves=True)
        metadata = base64.b64encode(agent.metadata).decode()
        line = {"metadata": metadata, "address": agent.address}
    except (AgentError, OSError) as error:
        line, code = {"error": str(error)}, 1
    with suppress(BrokenPipeError):
        os.write(hello, json.dumps(line).encode() + b"\n")
        while code == 0 and (ping := os.read(sys.stdin.fileno(), 4096)):
            os.write(hello, ping)
    os._exit(code)  # never by way of the agent's destructor: somebody may be reading


if __name__ == "__main__":
    parent, descriptor, num_bytes, hello = map(int, sys.argv[1:5])
    main(parent, descriptor, num_bytes, hello, sys.argv[5])
