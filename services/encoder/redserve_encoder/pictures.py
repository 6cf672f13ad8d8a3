"""Pictures on their way to the model: checked against their hash, measured, prepared once.

    Describe ─▶ hash, header ─▶ size ─▶ metadata; the encoded picture is kept for Encode
    Encode   ─▶ hash ─▶ later, in batch order: pixels kept? else prepare

Metadata is a function of the size, so that a picture is described from its header alone. Its
pixels are prepared when its turn comes, not before the first picture is encoded.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from redserve.errors import InvalidArgument, RedServeError
from redserve.wire.errors import CONTENT_MISSING
from redserve_encoder.byte_lru import ByteLru

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.domain import ItemMetadata
    from redserve_encoder.vision import Prepared, Vision

R = TypeVar("R")

MIB = 1024 * 1024
PREPARED_BYTES = 256 * MIB
"""Prepared pixels that wait for their turn; a picture of 4 megapixels takes about 100 MiB."""
DATA_BYTES = 256 * MIB
"""Encoded pictures, so that Encode need not send again what Describe brought."""

_PREPARE_NICENESS = 5


class ContentMissingError(RedServeError):
    """The picture is not here; the caller is to send it. Never reaches a client."""

    reason = CONTENT_MISSING
    grpc_code = "NOT_FOUND"
    http_status = 500
    retryable = True


@dataclass(frozen=True, slots=True)
class PreparedPicture:
    """A prepared picture and when that was done, nanoseconds since the Unix epoch."""

    prepared: Prepared
    start_ns: int
    end_ns: int


@dataclass(slots=True, eq=False)
class _Preparation:
    """Pixels on their way, and how many wait for them."""

    future: asyncio.Future[PreparedPicture]
    num_users: int = 0


class Pictures:
    """Measures and prepares in threads; the event loop owns everything else."""

    def __init__(
        self,
        vision: Vision,
        *,
        num_threads: int,
        now_ns: Callable[[], int],
        on_prepared: Callable[[float], None] = lambda _seconds: None,
        prepared_bytes: int = PREPARED_BYTES,
        data_bytes: int = DATA_BYTES,
    ) -> None:
        """Start empty.

        Args:
            vision: Measures and prepares.
            num_threads: Pictures that are prepared at once.
            now_ns: Nanoseconds since the Unix epoch.
            on_prepared: Told how many seconds each preparation took.
            prepared_bytes: Room for prepared pixels.
            data_bytes: Room for encoded pictures.
        """
        self._vision = vision
        self._now_ns = now_ns
        self._on_prepared = on_prepared
        self._prepared: ByteLru[PreparedPicture] = ByteLru(prepared_bytes)
        self._data: ByteLru[bytes] = ByteLru(data_bytes)
        self._preparations: dict[bytes, _Preparation] = {}
        # Headers have a thread of their own: a description must not queue behind pixels.
        self._header_thread = ThreadPoolExecutor(1, "picture-header")
        self._prepare_threads = ThreadPoolExecutor(
            num_threads, "picture-prepare", initializer=_yield_to_the_model
        )

    def recall(self, content_hash: bytes) -> bytes | None:
        """The encoded picture if it was here lately."""
        return self._data.get(content_hash)

    def has_pixels(self, content_hash: bytes) -> bool:
        """Whether the picture is prepared or being prepared."""
        return content_hash in self._prepared or content_hash in self._preparations

    async def admit(self, content_hash: bytes, data: bytes) -> None:
        """Check `data` against its hash and remember it.

        Raises:
            InvalidArgument: The hash is another one.
        """
        if content_hash in self._data:
            return
        digest = await self._in_header_thread(_sha256, data)
        if digest != content_hash:
            raise InvalidArgument(
                f"content_hash is {content_hash.hex()[:16] or 'empty'}, but the sha256 of the "
                f"{len(data)} bytes of data begins with {digest.hex()[:16]}",
                field="picture.content_hash",
            )
        self._data.put(content_hash, data, len(data))

    async def describe(self, content_hash: bytes, data: bytes) -> ItemMetadata:
        """What is known of a picture before it is encoded.

        Args:
            content_hash: sha256 of the picture.
            data: The encoded picture; may be empty if it was here lately.

        Raises:
            InvalidArgument: The hash is wrong, the header is no picture's, or the model takes no
                picture of this size. Damage behind the header shows when the picture is prepared.
            PolicyViolation: It is too large.
            ContentMissingError: There is no data.
        """
        if data:
            await self.admit(content_hash, data)
        else:
            data = self._recall_or_raise(content_hash)
        return await self._in_header_thread(self._vision.describe, data)

    async def prepared(self, content_hash: bytes, data: bytes | None) -> PreparedPicture:
        """The pixels, prepared now unless they are kept or on their way.

        Cancelling the last waiter cancels a preparation that no thread has begun.

        Raises:
            InvalidArgument: The picture is truncated, corrupt or of a size the model refuses.
            PolicyViolation: It is too large.
            ContentMissingError: There are neither pixels nor data.
        """
        kept = self._prepared.get(content_hash)
        if kept is not None:
            return kept
        preparation = self._preparations.get(content_hash)
        if preparation is None or preparation.future.cancelled():
            preparation = self._begin(content_hash, data or self._recall_or_raise(content_hash))
        preparation.num_users += 1
        try:
            return await asyncio.shield(preparation.future)
        finally:
            preparation.num_users -= 1
            if preparation.num_users == 0 and not preparation.future.done():
                preparation.future.cancel()

    def forget_pixels(self, content_hash: bytes) -> None:
        """The embedding exists: make room for pictures that still wait."""
        self._prepared.pop(content_hash)

    def close(self) -> None:
        """Stop the threads after what they are doing now. Blocks that long."""
        self._header_thread.shutdown(wait=True, cancel_futures=True)
        self._prepare_threads.shutdown(wait=True, cancel_futures=True)

    def _recall_or_raise(self, content_hash: bytes) -> bytes:
        data = self._data.get(content_hash)
        if data is None:
            raise ContentMissingError(f"picture {content_hash.hex()[:16]} is not here: send it")
        return data

    def _begin(self, content_hash: bytes, data: bytes) -> _Preparation:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._prepare_threads, self._prepare, data)
        preparation = self._preparations[content_hash] = _Preparation(future)
        future.add_done_callback(lambda _: self._finish(content_hash, preparation))
        return preparation

    def _prepare(self, data: bytes) -> PreparedPicture:
        start_ns = self._now_ns()
        prepared = self._vision.prepare(data)
        return PreparedPicture(prepared, start_ns, self._now_ns())

    def _finish(self, content_hash: bytes, preparation: _Preparation) -> None:
        # A cancelled preparation may have been followed by another one before this is called.
        if self._preparations.get(content_hash) is preparation:
            del self._preparations[content_hash]
        done = preparation.future
        if done.cancelled() or done.exception() is not None:
            return
        picture = done.result()
        self._prepared.put(content_hash, picture, picture.prepared.num_bytes)
        self._on_prepared((picture.end_ns - picture.start_ns) / 1e9)

    async def _in_header_thread(self, function: Callable[[bytes], R], data: bytes) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._header_thread, function, data)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _yield_to_the_model() -> None:
    # Where preparing the next pictures shares a core with encoding the present one, the present
    # one goes first: it is what the LLM replica waits for. Linux has niceness per thread.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PREPARE_NICENESS)
