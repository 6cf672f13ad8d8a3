"""How long a request may still take."""

from __future__ import annotations

import asyncio


class Deadline:
    """A moment on the event loop's clock.

    Attributes:
        at: The moment, in seconds of `loop.time()`.
        timeout_s: What was given at the start.
        from_client: Whether the client set it, and not the service.
    """

    __slots__ = ("at", "from_client", "timeout_s")

    def __init__(self, timeout_s: float, *, from_client: bool = False) -> None:
        self.timeout_s = timeout_s
        self.from_client = from_client
        self.at = asyncio.get_running_loop().time() + timeout_s

    def remaining_s(self) -> float:
        """Seconds left, never below zero; what every call that is made in turn gets."""
        return max(0.0, self.at - asyncio.get_running_loop().time())
