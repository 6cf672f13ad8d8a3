"""Fills both pools of a router from the EndpointSlices of its revision."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.errors import ConfigError
from redserve.telemetry.log import get_logger
from redserve.telemetry.metrics.discovery import DiscoveryMetrics
from redserve_router.discovery.account import ServiceAccount
from redserve_router.discovery.api import SliceApi
from redserve_router.discovery.follower import SliceFollower
from redserve_router.discovery.status import DiscoveryStatus
from redserve_router.discovery.timing import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import CollectorRegistry

    from redserve.routing import Member
    from redserve.spec.settings import RouterSettings
    from redserve_router.discovery.slices import SliceStore

    SetMembers = Callable[[Iterable[Member]], None]

log = get_logger()


class Discovery:
    """Follows some Services. Create it inside the event loop.

    Args:
        api: Says which slices there are; owned.
        pools: Who is told of the members of each Service, by the Service's name.
        registry: For metrics.
        timing: How long to wait.
    """

    def __init__(
        self,
        api: SliceApi,
        pools: Mapping[str, SetMembers],
        registry: CollectorRegistry,
        timing: Timing,
    ) -> None:
        self._pools = pools
        self._told: dict[str, tuple[Member, ...]] = {}
        self.status = DiscoveryStatus(DiscoveryMetrics(registry))
        self._follower = SliceFollower(api, self.status, self._tell, timing)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follower.run())

    async def stop(self) -> None:
        """Follow no longer; the pools stay as they are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _tell(self, store: SliceStore) -> None:
        for service, set_members in self._pools.items():
            members = store.members(service)
            if self._told.get(service) != members:
                self._told[service] = members
                set_members(members)


def discovery_for(
    settings: RouterSettings,
    api_url: str | None,
    set_encoders: SetMembers,
    set_llms: SetMembers,
    registry: CollectorRegistry,
    timing: Timing | None = None,
) -> Discovery | None:
    """What the settings ask for; None when all addresses are given.

    Raises:
        ConfigError: Services are named, but not where to ask for them.
    """
    wanted = {settings.encoder_service: set_encoders, settings.llm_service: set_llms}
    pools = {service: tell for service, tell in wanted.items() if service}
    if not pools:
        return None
    if settings.encoder_service == settings.llm_service:
        raise ConfigError("must differ from encoder_service", field="llm_service")
    field = "llm_service" if settings.llm_service else "encoder_service"
    if api_url is None:
        raise ConfigError(
            "is looked up in a Kubernetes cluster, and this process runs in none "
            "(KUBERNETES_SERVICE_HOST is not set); name encoder_addresses and llm_addresses",
            field=field,
        )
    account = ServiceAccount(settings.service_account_dir)
    namespace = settings.service_namespace or account.namespace()
    if namespace is None:
        raise ConfigError(f"name the namespace of {field}", field="service_namespace")
    timing = timing or Timing()
    api = SliceApi(api_url, account, namespace, tuple(pools), timing)
    return Discovery(api, pools, registry, timing)
