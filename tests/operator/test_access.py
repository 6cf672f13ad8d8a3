from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redserve.errors import ConfigError
from redserve.spec.settings import OperatorSettings
from redserve_operator.kube import access
from redserve_operator.kube.access import bearer_token, configuration

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OperatorSettings:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    (tmp_path / "ca.crt").write_text("authority")
    (tmp_path / "token").write_text("first\n")
    return OperatorSettings.model_validate({"service_account_dir": str(tmp_path)})


async def test_a_pod_uses_its_service_account(in_a_pod: OperatorSettings, tmp_path: Path) -> None:
    found = await configuration(in_a_pod)
    assert found.host == "https://[fd00::1]:6443"
    assert found.ssl_ca_cert == str(tmp_path / "ca.crt")
    assert await bearer_token(found) == "first"


async def test_a_rotated_token_is_read_again(
    in_a_pod: OperatorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await configuration(in_a_pod)
    (tmp_path / "token").write_text("second")
    assert await bearer_token(found) == "first"
    monkeypatch.setattr(access, "TOKEN_MAX_AGE_S", 0.0)
    assert await bearer_token(found) == "second"


async def test_what_is_missing_is_named(
    in_a_pod: OperatorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigError, match="token is missing"):
        await configuration(in_a_pod)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(ConfigError, match="name a kubeconfig"):
        await configuration(in_a_pod)


async def test_a_kubeconfig(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://example.invalid:6443"}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
    )
    found = await configuration(OperatorSettings.model_validate({"kubeconfig": str(path)}))
    assert found.host == "https://example.invalid:6443"
    assert await bearer_token(found) == "secret"


@pytest.mark.parametrize("content", [None, "", "current-context: x", "nonsense: ["])
async def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="REDSERVE_OPERATOR_KUBECONFIG"):
        await configuration(OperatorSettings.model_validate({"kubeconfig": str(path)}))
