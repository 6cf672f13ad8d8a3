"""Programs in the background, each with a log file; they die with the one that started them."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

from redserve.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)
_TAIL_BYTES: Final = 3000


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills this process when the thread that started it is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


class BackgroundProcess:
    """One running program; its output goes to a file.

    Args:
        name: For messages.
        command: Program and arguments.
        log: Appended to.
        environment: The whole environment; None inherits ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us: we stop it in our order
                preexec_fn=die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Return when the condition holds.

        Raises:
            Unavailable: The program ended, or the condition does not hold after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.is_running:
                code = self._process.returncode
                raise Unavailable(f"{self.name} ended with {code} before {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{self.name}: not {what} in {timeout_s:g} s:\n{self.tail()}")
            time.sleep(0.05)

    def stop(self, *, grace_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL where that does not end it; returns when it has ended."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """SIGKILL; returns when it has ended."""
        self._process.kill()
        self._process.wait()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
