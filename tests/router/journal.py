"""What a fake has seen, to be waited for without sleeping."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Journal:
    """A list of (word, detail) that can be waited on."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Any]] = []
        self._grown = asyncio.Event()

    def note(self, word: str, detail: Any = None) -> None:
        self.entries.append((word, detail))
        self._grown.set()
        self._grown = asyncio.Event()

    def all(self, word: str) -> list[Any]:
        return [detail for known, detail in self.entries if known == word]

    async def wait_for(self, holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():
                await self._grown.wait()

    async def wait_count(self, word: str, count: int, timeout_s: float = 10.0) -> list[Any]:
        await self.wait_for(lambda: len(self.all(word)) >= count, timeout_s)
        return self.all(word)
