"""`/metrics` over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import start_http_server

from redserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry


def serve_metrics(
    registry: CollectorRegistry, host: str, port: int
) -> tuple[int, Callable[[], None]]:
    """Serve `/metrics` over HTTP in a daemon thread.

    Args:
        registry: What to show.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Returns:
        The bound port, and a function that stops the server and waits for its thread.

    Raises:
        ConfigError: The address cannot be bound.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(
            f"cannot serve metrics on {host}:{port}: {error.strerror or error}; "
            "choose a free port, or 0 to take any",
            field="metrics_port",
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
