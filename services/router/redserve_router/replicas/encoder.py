"""An encoder replica and what the router knows of it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from redserve.routing import EncoderSnapshot, RecentContents
from redserve_router.clients.encoder import EncoderClient
from redserve_router.replicas.replica import INFO_TIMEOUT_S, LOAD_INTERVAL_MS, Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redserve_router.clients.encoder import EncoderInfo, EncoderLoad

REMEMBERED_PICTURES = 4096
"""About what an encoder's cache holds; a wrong guess costs one round trip."""


class EncoderReplica(Replica):
    """One encoder.

    Attributes:
        client: For calls.
        info: Its checkpoint, once connected.
    """

    pool = "encoder"

    def __init__(self, address: str, on_change: Callable[[], None]) -> None:
        super().__init__(address, on_change)
        self.client = EncoderClient(self._channel)
        self.info: EncoderInfo | None = None
        self._load: EncoderLoad | None = None
        self._rows_since_report = 0
        self._has_bytes = RecentContents(REMEMBERED_PICTURES)
        self._has_rows = RecentContents(REMEMBERED_PICTURES)

    @property
    def fingerprint(self) -> str:
        """Of the checkpoint that it serves; empty before the first connection."""
        return self.info.fingerprint if self.info is not None else ""

    @property
    def transport(self) -> str:
        """Data path in use; empty before the first connection."""
        return self.info.transport if self.info is not None else ""

    def snapshot(self, content_hashes: Iterable[bytes]) -> EncoderSnapshot:
        """What routing needs to know; of its cache, only what concerns `content_hashes`."""
        load = self._load
        return EncoderSnapshot(
            address=self.address,
            serving=self.serving,
            queued_rows=(load.queued_rows if load else 0) + self._rows_since_report,
            in_flight_rows=load.running_rows if load else 0,
            cached=self._has_rows.known(content_hashes),
        )

    def has_bytes(self, content_hash: bytes) -> bool:
        """Whether the picture was sent there and should be there still."""
        return bool(self._has_bytes.known((content_hash,)))

    def note_described(self, content_hash: bytes) -> None:
        """The encoder has read the picture and keeps its pixels."""
        self._has_bytes.note((content_hash,))

    def note_encode(self, content_hash: bytes, num_rows: int) -> None:
        """A picture is on its way to be encoded there."""
        self._has_bytes.note((content_hash,))
        if not self._has_rows.known((content_hash,)):
            self._rows_since_report += num_rows
        self._has_rows.note((content_hash,))

    def note_missing(self, content_hash: bytes) -> None:
        """The encoder says that it does not have the picture."""
        self._has_bytes.discard(content_hash)
        self._has_rows.discard(content_hash)

    def load_figures(self) -> dict[str, float]:
        """Load by name, for people."""
        if self._load is None:
            return {}
        return {
            "queued_rows": self._load.queued_rows,
            "running_rows": self._load.running_rows,
            "num_items": self._load.num_items,
            "cache_bytes": self._load.cache_bytes,
        }

    async def _introduce(self) -> None:
        self.info = await self.client.model_info(INFO_TIMEOUT_S)
        self._has_bytes.forget()
        self._has_rows.forget()

    async def _follow_load(self) -> None:
        async with aclosing(self.client.watch_load(LOAD_INTERVAL_MS)) as loads:
            async for load in loads:
                self._load = load
                self._rows_since_report = 0
                self._set_serving(load.serving)
