"""kopf as the watch layer: it lists and watches, the handler stores and enqueues, nothing else.

kopf may do nothing to the cluster: no finalizer or annotation (that needs handlers of changes,
timers or daemons, and here are event handlers only), no Events, no peering. `kopf.index` is not
used: it keeps every listed object whole until all kinds are listed, which is the memory that a
large cluster needs most at its start; `Audit.synced` says instead when the cache is complete.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import kopf

from redserve_operator.kube.access import bearer_token
from redserve_operator.kube.kinds import OF_A_SERVICE, REDSERVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubernetes.aio.client.configuration import Configuration

    from redserve_operator.kube.kinds import Kind

_TOKEN_LASTS = timedelta(minutes=5)
_IDLE_S = 0.2
"""kopf has a task for each object that has just changed, which holds on to it for this long."""


class Watches:
    """kopf's operator, running in this event loop.

    Args:
        access: Server and credentials.
        kinds: What to watch.
        namespaces: Where; empty is everywhere.
        request_timeout_s: Longest call of the API server, seconds.
        handle: Is told kind, whether the object is gone, and the object, for every event.
    """

    def __init__(
        self,
        access: Configuration,
        kinds: Sequence[Kind],
        namespaces: Sequence[str],
        request_timeout_s: float,
        handle: Callable[[Kind, bool, dict[str, Any]], None],
    ) -> None:
        self._access = access
        self._kinds = kinds
        self._namespaces = namespaces
        self._handle = handle
        self._settings = _kopf_settings(kinds, request_timeout_s)
        self._stop = asyncio.Event()

    async def run(self, after_start: Callable[[], None]) -> None:
        """Watch until `stop`; raises whatever ends a watch for good.

        Args:
            after_start: Called once kopf has begun; kopf takes over the signals of the process
                when it begins, and whoever wants them back takes them here.
        """
        existing = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=self._settings,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=list(self._namespaces),
            stop_flag=self._stop,
        )
        after_start()
        await kopf.run_tasks(tasks, ignored=existing)

    def stop(self) -> None:
        """End `run`; may be called more than once."""
        self._stop.set()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return await _connection(self._access)

        for kind in self._kinds:
            kopf.on.event(
                kind.group or "", kind.version, kind.plural, registry=registry, id=kind.name
            )(self._handler(kind))
        return registry

    def _handler(self, kind: Kind) -> Callable[..., Any]:
        async def handle(event: dict[str, Any], **_: Any) -> None:
            self._handle(kind, event["type"] == "DELETED", event["object"])

        return handle


def _kopf_settings(kinds: Sequence[Kind], request_timeout_s: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # Kinds are discovered by ourselves, and namespaces are named or all: kopf need not watch
    # definitions and namespaces, for which a namespaced operator has no right.
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.networking.request_timeout = request_timeout_s
    settings.networking.connect_timeout = request_timeout_s
    settings.networking.enforce_retry_after = True
    settings.watching.chunk_size = 250
    settings.queueing.idle_timeout = _IDLE_S
    for kind in kinds:
        if kind is not REDSERVICE:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = OF_A_SERVICE
    # What it says at "info" is about its own tasks; what it says at "error" ends it anyhow.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    return settings


async def _connection(access: Configuration) -> kopf.ConnectionInfo:
    token = await bearer_token(access)
    return kopf.ConnectionInfo(
        server=access.host,
        ca_path=access.ssl_ca_cert,
        ca_data=access.ca_cert_data,
        insecure=not access.verify_ssl,
        token=token,
        scheme="Bearer",
        certificate_path=access.cert_file,
        private_key_path=access.key_file,
        # Tokens are rotated: kopf asks again after this time, and whenever one is not valid.
        expiration=datetime.now(UTC) + _TOKEN_LASTS if token else None,
    )
