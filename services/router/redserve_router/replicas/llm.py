"""An LLM replica and what the router knows of it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from redserve.routing import LlmSnapshot, RecentContents
from redserve_router.clients.llm import LlmClient
from redserve_router.replicas.replica import INFO_TIMEOUT_S, LOAD_INTERVAL_MS, Replica

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.routing import RequestFacts
    from redserve_router.clients.llm import LlmInfo, LlmLoad

REMEMBERED_PREFIXES = 8192
DEFAULT_BLOCK_SIZE = 16


class LlmReplica(Replica):
    """One LLM replica.

    Attributes:
        client: For calls.
        info: Its checkpoint and limits, once connected.
    """

    pool = "llm"

    def __init__(self, address: str, on_change: Callable[[], None]) -> None:
        super().__init__(address, on_change)
        self.client = LlmClient(self._channel)
        self.info: LlmInfo | None = None
        self._load: LlmLoad | None = None
        self._tokens_since_report = 0
        self._sequences_since_report = 0
        self._prefixes = RecentContents(REMEMBERED_PREFIXES)

    @property
    def fingerprint(self) -> str:
        """Of the checkpoint that it serves; empty before the first connection."""
        return self.info.fingerprint if self.info is not None else ""

    @property
    def transport(self) -> str:
        """Data path in use; empty before the first connection."""
        return self.info.transport if self.info is not None else ""

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do but the one request that asks."""
        load = self._load
        return self.num_calls <= 1 and (load is None or load.num_running + load.num_waiting <= 1)

    def snapshot(self, facts: RequestFacts) -> LlmSnapshot:
        """What routing needs to know; of its prefix cache, only what concerns `facts`."""
        load = self._load
        recent = self._prefixes.known(facts.prefixes)
        if load is None:
            return LlmSnapshot(self.address, serving=self.serving, recent_prefixes=recent)
        return LlmSnapshot(
            address=self.address,
            serving=self.serving,
            schedulable_tokens=load.schedulable_tokens,
            waiting_tokens=load.waiting_tokens + self._tokens_since_report,
            blocks_free=load.blocks_free,
            blocks_total=load.blocks_total,
            block_size=self._block_size(load),
            num_running=load.num_running + self._sequences_since_report,
            recent_prefixes=recent,
        )

    def note_sent(self, facts: RequestFacts) -> None:
        """A request is on its way there."""
        self._prefixes.note(facts.prefixes)
        self._tokens_since_report += facts.num_prompt_tokens
        self._sequences_since_report += 1

    def load_figures(self) -> dict[str, float]:
        """Load by name, for people."""
        figures: dict[str, float] = {"inflight_requests": self.num_calls}
        if self._load is not None:
            figures |= {
                "num_waiting": self._load.num_waiting,
                "num_running": self._load.num_running,
                "schedulable_tokens": self._load.schedulable_tokens,
                "waiting_tokens": self._load.waiting_tokens,
                "blocks_free": self._load.blocks_free,
                "blocks_total": self._load.blocks_total,
                "arena_bytes": self._load.arena_bytes,
            }
        return figures

    def _block_size(self, load: LlmLoad) -> int:
        if self.info is None or not load.blocks_total:
            return DEFAULT_BLOCK_SIZE
        return max(1, self.info.kv_cache_tokens // load.blocks_total)

    async def _introduce(self) -> None:
        self.info = await self.client.model_info(INFO_TIMEOUT_S)
        self._prefixes.forget()

    async def _follow_load(self) -> None:
        async with aclosing(self.client.watch_load(LOAD_INTERVAL_MS)) as loads:
            async for load in loads:
                self._load = load
                self._tokens_since_report = self._sequences_since_report = 0
                self._set_serving(load.serving)
