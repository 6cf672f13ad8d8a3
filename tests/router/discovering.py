"""Discovery against the fake API server, and what it tells the pools."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from redserve.spec.settings import RouterSettings
from redserve_router.discovery.discovery import Discovery, discovery_for
from redserve_router.discovery.timing import Timing
from tests.router.fake_api_server import NAMESPACE, TOKEN, FakeApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from redserve.routing import Member

ENCODERS, LLMS = "demo-encoder-0badcafe", "demo-llm-0badcafe"
QUICK = {"answer_s": 2.0, "shortest_watch_s": 0.01, "first_backoff_s": 0.01}
QUICK |= {"longest_backoff_s": 0.05}


def account_folder(folder: Path) -> Path:
    """As a pod has it."""
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "namespace").write_text(NAMESPACE)
    return folder


def settings_for(folder: Path, **overrides: Any) -> dict[str, Any]:
    return {
        "encoder_service": ENCODERS,
        "llm_service": LLMS,
        "service_account_dir": str(folder),
        **overrides,
    }


class Watched:
    """What has been told, to be waited for."""

    def __init__(self, server: FakeApiServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.registry = CollectorRegistry()
        self.members: dict[str, dict[str, bool]] = {}
        self.discovery: Discovery

    def told(self, service: str) -> Callable[[Iterable[Member]], None]:
        def tell(members: Iterable[Member]) -> None:
            self.members[service] = {member.address: member.takes_work for member in members}

        return tell

    @property
    def llms(self) -> dict[str, bool] | None:
        return self.members.get(LLMS)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"redserve_discovery_{name}", labels)

    async def until(self, holds: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Discovery has no moment of its own to wait for: look every few milliseconds."""
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110  # metrics have no event to wait for
                await asyncio.sleep(0.005)

    async def until_llms(self, *addresses: str) -> None:
        wanted = {f"{address}:50051" for address in addresses}
        await self.until(lambda: self.llms is not None and set(self.llms) == wanted)

    async def until_synced(self) -> None:
        await self.until(lambda: self.discovery.status.synced)

    async def until_lost(self) -> None:
        await self.until(lambda: not self.discovery.status.synced)


@asynccontextmanager
async def discovering(
    server: FakeApiServer, folder: Path, *, wait: bool = True, **timing: float
) -> AsyncIterator[Watched]:
    watched = Watched(server, account_folder(folder))
    discovery = discovery_for(
        RouterSettings.model_validate(settings_for(folder)),
        server.url,
        watched.told(ENCODERS),
        watched.told(LLMS),
        watched.registry,
        Timing(**{**QUICK, **timing}),
    )
    assert discovery is not None
    watched.discovery = discovery
    discovery.start()
    try:
        if wait:
            await watched.until_synced()
        yield watched
    finally:
        await discovery.stop()
