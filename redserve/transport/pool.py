"""One slab of memory per process, and page-granular regions of it.

A region goes back to the pool when its owner has freed it *and* nobody holds it:

    owned ──free()──────────────────────────────► pool
      │                                             ▲
      └─hold()─► in flight ─free()─► quarantined ───┘ last unhold()

Holds are how a backend keeps a destination until the last byte has landed, and how a lease keeps
a source while it is read. The pool is thread-safe.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.errors import Overloaded
from redserve.transport.buffer import Segment
from redserve.transport.pages import PageAllocator
from redserve.transport.slab import HostSlab

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from redserve.transport.slab import Slab

_RETRY_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """Somebody who waits for room, on an event loop."""

    num_bytes: int
    loop: asyncio.AbstractEventLoop
    room: asyncio.Future[Region]


class Region:
    """Bytes [offset, offset + num_bytes) of a pool. Whoever allocated it owns it and frees it."""

    __slots__ = ("_freed", "_holds", "_pool", "num_bytes", "num_pages", "offset")

    def __init__(self, pool: Pool, offset: int, num_bytes: int, num_pages: int) -> None:
        self._pool = pool
        self._freed = False
        self._holds = 0
        self.offset = offset
        self.num_bytes = num_bytes
        self.num_pages = num_pages

    @property
    def pool(self) -> Pool:
        """Where it is."""
        return self._pool

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The one piece that it is; with this a region is a `Buffer`."""
        return (Segment(self.offset, self.num_bytes),)

    @property
    def view(self) -> NDArray[np.uint8]:
        """The bytes, uint8 of shape [num_bytes]; not to be touched after `free`.

        Raises:
            TypeError: They are a device's memory.
        """
        return self._pool.buffer[self.offset : self.offset + self.num_bytes]

    @property
    def freed(self) -> bool:
        """Whether the owner has freed it; the memory may still be held."""
        return self._freed

    @property
    def gone(self) -> bool:
        """Whether its pages have returned: it is freed, and nobody holds it any more."""
        return self._freed and not self._holds

    def free(self) -> None:
        """Give it up; idempotent. The pages return once nobody holds them."""
        self._pool._free(self)

    def hold(self) -> None:
        """Keep the pages from being reused until as many calls of `unhold`.

        A freed region may be held on top of another hold: its pages are not reused before the last
        one ends.

        Raises:
            RuntimeError: The region was freed and nobody holds it: its pages may be another's.
        """
        self._pool._hold(self)

    def unhold(self) -> None:
        """End one `hold`."""
        self._pool._unhold(self)

    def __repr__(self) -> str:
        state = "freed" if self._freed else "owned"
        return f"Region({self.offset}+{self.num_bytes}, {state}, {self._holds} holds)"


class Pool:
    """A slab with a first-fit page allocator.

    Args:
        num_bytes: Size; rounded up to whole pages.
        page_bytes: Granularity, a multiple of 64.
        make_slab: Makes the memory, of the size that it is given in bytes; host memory by default.

    Attributes:
        slab: The memory.
    """

    def __init__(
        self,
        num_bytes: int,
        page_bytes: int = 4096,
        make_slab: Callable[[int], Slab] = HostSlab,
    ) -> None:
        if num_bytes < 1 or page_bytes < 64 or page_bytes % 64:
            raise ValueError(f"no pool of {num_bytes} bytes in pages of {page_bytes}")
        self.page_bytes = page_bytes
        num_pages = -(-num_bytes // page_bytes)
        self.num_bytes = num_pages * page_bytes
        self.slab = make_slab(self.num_bytes)
        self._lock = threading.Lock()
        self._pages = PageAllocator(num_pages)
        self._quarantined_pages = 0
        self._waiters: deque[_Waiter] = deque()
        self._observers: tuple[Callable[[int, int], None], ...] = ()

    @property
    def buffer(self) -> NDArray[np.uint8]:
        """The memory, uint8 of shape [num_bytes].

        Raises:
            TypeError: It is a device's.
        """
        if self.slab.host is None:
            raise TypeError("device memory has no view on the host")
        return self.slab.host

    @property
    def used_bytes(self) -> int:
        """Bytes of pages that are not free, quarantined ones included."""
        return self.num_bytes - self._pages.num_free * self.page_bytes

    @property
    def quarantined_bytes(self) -> int:
        """Bytes of pages whose owner has freed them but which are still held."""
        return self._quarantined_pages * self.page_bytes

    def alloc(self, num_bytes: int) -> Region:
        """Take a region.

        Raises:
            Overloaded: There is no room; come back later.
            ValueError: num_bytes is not positive.
        """
        region = self.try_alloc(num_bytes)
        if region is None:
            raise self._no_room(num_bytes)
        return region

    def try_alloc(self, num_bytes: int) -> Region | None:
        """Take a region if there is room now; does not queue behind those who wait."""
        self._check(num_bytes)
        with self._lock:
            region = self._take(num_bytes)
            used = self.used_bytes
        if region is not None:
            self._tell(used)
        return region

    async def alloc_wait(self, num_bytes: int, timeout_s: float) -> Region:
        """Take a region, waiting for room in the order of the calls.

        Raises:
            Overloaded: No room within `timeout_s` seconds, or never in a pool of this size.
            ValueError: num_bytes is not positive.
        """
        self._check(num_bytes)
        if num_bytes > self.num_bytes:
            raise self._no_room(num_bytes)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(num_bytes, loop, loop.create_future())
        with self._lock:
            region = None if self._waiters else self._take(num_bytes)
            if region is None:
                self._waiters.append(waiter)
            used = self.used_bytes
        if region is not None:
            self._tell(used)
            return region
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.room
        except TimeoutError:
            self._give_up(waiter)
            raise self._no_room(num_bytes) from None
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def on_change(self, callback: Callable[[int, int], None]) -> None:
        """Call `callback(used_bytes, free_bytes)` after changes, in whichever thread made them.

        It is called once at once; callbacks given earlier stay.
        """
        self._observers = (*self._observers, callback)
        callback(self.used_bytes, self.num_bytes - self.used_bytes)

    def _check(self, num_bytes: int) -> None:
        if num_bytes < 1:
            raise ValueError(f"a region has at least one byte, not {num_bytes}")

    def _no_room(self, num_bytes: int) -> Overloaded:
        if num_bytes > self.num_bytes:
            return Overloaded(
                f"{num_bytes} bytes do not fit a pool of {self.num_bytes}; configure a larger pool"
            )
        return Overloaded(
            f"no room for {num_bytes} bytes: {self.used_bytes} of {self.num_bytes} are used",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _tell(self, used: int) -> None:
        for callback in self._observers:
            callback(used, self.num_bytes - used)

    # Below: the lock is held, except where a method takes it.

    def _take(self, num_bytes: int) -> Region | None:
        num_pages = -(-num_bytes // self.page_bytes)
        first = self._pages.take(num_pages)
        return (
            None if first is None else Region(self, first * self.page_bytes, num_bytes, num_pages)
        )

    def _give_back(self, region: Region) -> None:
        self._pages.give_back(region.offset // self.page_bytes, region.num_pages)
        self._serve_waiters()

    def _serve_waiters(self) -> None:
        while self._waiters:
            waiter = self._waiters[0]
            region = self._take(waiter.num_bytes)
            if region is None:
                return  # the first in line goes first, or a large one would starve
            self._waiters.popleft()
            try:
                waiter.loop.call_soon_threadsafe(_hand_over, waiter, region)
            except RuntimeError:  # its loop is closed
                self._give_back(region)

    def _give_up(self, waiter: _Waiter) -> None:
        """The waiter has gone; what was or will be handed to it goes back."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._serve_waiters()  # the next in line may want less
        if waiter.room.done() and not waiter.room.cancelled():
            waiter.room.result().free()  # served in the very moment of giving up
        waiter.room.cancel()

    def _free(self, region: Region) -> None:
        with self._lock:
            if region._freed:
                return
            region._freed = True
            if region._holds:
                self._quarantined_pages += region.num_pages
            else:
                self._give_back(region)
            used = self.used_bytes
        self._tell(used)

    def _hold(self, region: Region) -> None:
        with self._lock:
            if region._freed and not region._holds:
                raise RuntimeError("a freed region that nobody holds cannot be held")
            region._holds += 1

    def _unhold(self, region: Region) -> None:
        with self._lock:
            if region._holds < 1:
                raise RuntimeError("unhold without hold")
            region._holds -= 1
            if region._holds or not region._freed:
                return
            self._quarantined_pages -= region.num_pages
            self._give_back(region)
            used = self.used_bytes
        self._tell(used)


def _hand_over(waiter: _Waiter, region: Region) -> None:
    """On the waiter's loop: it may have given up in the meantime."""
    if waiter.room.done():
        region.free()
    else:
        waiter.room.set_result(region)
