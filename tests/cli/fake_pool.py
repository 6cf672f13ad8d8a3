"""An encoder or an LLM engine that is only healthy, as a child of `redserve up`."""

from __future__ import annotations

import asyncio
import sys

from redserve.errors import ConfigError, RedServeError
from redserve.spec.settings import EncoderSettings, LLMSettings
from redserve.telemetry import log
from redserve.wire.server import ServiceServer


async def main(settings: EncoderSettings | LLMSettings) -> None:
    server = ServiceServer(settings.grpc_host, settings.grpc_port)
    await server.start()
    server.set_ready(settings.lease_ttl_s != 13 if isinstance(settings, EncoderSettings) else True)
    print(f"{settings.name} on {settings.device} with {settings.model_uri}", flush=True)
    await server.wait_for_signal()
    await server.drain(settings.drain_timeout_s)


def checked(settings: EncoderSettings | LLMSettings) -> EncoderSettings | LLMSettings:
    if isinstance(settings, LLMSettings) and settings.token_budget == 13:
        raise ConfigError("13 tokens bring no luck", field="token_budget")
    if settings.transport == "rdma":
        raise ConfigError("RDMA is not to be had: no device", field="spec.transport.type")
    return settings


def run(kind: type[EncoderSettings] | type[LLMSettings]) -> None:
    try:
        asyncio.run(main(checked(kind.from_env())))
    except RedServeError as error:
        log.configure("info", "text", "")
        log.get_logger().error("cannot start", reason=error.reason, why=str(error))
        sys.exit(2)
