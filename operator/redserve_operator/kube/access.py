"""How the API server is reached: by the pod's ServiceAccount, or by a kubeconfig."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from redserve.errors import ConfigError
from redserve.spec.settings import kubernetes_api

if TYPE_CHECKING:
    from redserve.spec.settings import OperatorSettings

TOKEN_MAX_AGE_S = 60.0
"""Kubernetes rotates a pod's token; it is read again when what is known is older than this."""


async def configuration(settings: OperatorSettings) -> Configuration:
    """Server and credentials for the client and for kopf alike.

    Raises:
        ConfigError: Neither a usable kubeconfig nor a ServiceAccount is there; names what to set.
    """
    access = Configuration()
    if settings.kubeconfig:
        try:
            await load_kube_config(  # type: ignore[no-untyped-call]
                settings.kubeconfig, client_configuration=access
            )
        except Exception as error:  # the loader raises whatever a wrong file makes it stumble over
            why = " ".join(str(error).split())
            raise ConfigError(
                f"{settings.kubeconfig} is no usable kubeconfig: {why}",
                field="REDSERVE_OPERATOR_KUBECONFIG",
            ) from None
    else:
        _from_service_account(access, Path(settings.service_account_dir))
    # Proxies and passwords of the environment are for the internet, not for the API server.
    access.client_session_kwargs = {"trust_env": False}
    access.connection_pool_maxsize = 4 * settings.num_workers + 16
    return access


def _from_service_account(access: Configuration, directory: Path) -> None:
    server = kubernetes_api()
    if server is None:
        raise ConfigError(
            "KUBERNETES_SERVICE_HOST is not set: this is no pod; name a kubeconfig",
            field="REDSERVE_OPERATOR_KUBECONFIG",
        )
    authority, token = directory / "ca.crt", directory / "token"
    for path in (authority, token):
        if not path.is_file():
            raise ConfigError(
                f"{path} is missing; mount the ServiceAccount's token",
                field="REDSERVE_OPERATOR_SERVICE_ACCOUNT_DIR",
            )
    access.host = server
    access.ssl_ca_cert = str(authority)
    access.api_key_prefix["BearerToken"] = "Bearer"
    read_at = -TOKEN_MAX_AGE_S

    def read_token(_: Configuration) -> None:
        nonlocal read_at
        now = time.monotonic()
        if now - read_at >= TOKEN_MAX_AGE_S:
            access.api_key["BearerToken"] = token.read_text().strip()
            read_at = now

    read_token(access)
    access.refresh_api_key_hook = read_token  # type: ignore[assignment]


async def bearer_token(access: Configuration) -> str | None:
    """The token to send, read again when it is old; None when certificates are used."""
    header: str | None = await access.get_api_key_with_prefix("BearerToken", alias="authorization")
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    return token if token and scheme.lower() == "bearer" else header


def timeout(seconds: float) -> Any:
    """The longest that one call may take, connecting included."""
    return aiohttp.ClientTimeout(total=seconds)
