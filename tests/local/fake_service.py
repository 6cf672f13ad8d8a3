"""A service that does as its environment says: just enough to be supervised.

FAKE_PORT      where gRPC health listens
FAKE_NAME      what it calls itself in the journal
FAKE_JOURNAL   file to which it appends "<name> <event>" lines
FAKE_CRASHES   how many of its first starts end with status 1
FAKE_EXIT      status with which it ends at once, after saying FAKE_WORDS
FAKE_DEAF      does not end at SIGTERM
FAKE_CHILD     file for the process id of a child that it starts
FAKE_UNREADY   never becomes ready
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from redserve.wire.server import ServiceServer


def note(event: str) -> None:
    with Path(os.environ["FAKE_JOURNAL"]).open("a") as journal:
        journal.write(f"{os.environ['FAKE_NAME']} {event}\n")


def have_a_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(os.environ["FAKE_CHILD"]).write_text(str(child.pid))


async def serve() -> None:
    server = ServiceServer("127.0.0.1", int(os.environ["FAKE_PORT"]))
    await server.start()
    if "FAKE_CHILD" in os.environ:
        have_a_child()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if "FAKE_DEAF" in os.environ:
        loop.add_signal_handler(signal.SIGTERM, lambda: note("heard"))
    else:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    server.set_ready("FAKE_UNREADY" not in os.environ)
    note("serving")
    print(f"hello from {os.environ['FAKE_NAME']}", flush=True)
    await stop.wait()
    note("stopping")
    await server.drain(1.0)
    note("stopped")


def main() -> None:
    note(f"started {os.getpid()}")
    if "FAKE_EXIT" in os.environ:
        print(os.environ.get("FAKE_WORDS", ""), file=sys.stderr, flush=True)
        sys.exit(int(os.environ["FAKE_EXIT"]))
    starts = Path(os.environ["FAKE_JOURNAL"]).read_text().splitlines()
    mine = [line for line in starts if line.startswith(f"{os.environ['FAKE_NAME']} started")]
    if len(mine) <= int(os.environ.get("FAKE_CRASHES", "0")):
        print("fake crash", file=sys.stderr, flush=True)
        sys.exit(1)
    asyncio.run(serve())


if __name__ == "__main__":
    main()
