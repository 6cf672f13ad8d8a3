"""A real control plane for all tests that are marked `cluster`; `make test-cluster` runs them."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.waiting import eventually
from tools.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLUSTER_TIMEOUT_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(CLUSTER_TIMEOUT_S))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One for the whole run. A test that stops the API server starts it again."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as started:
        yield started


@pytest.fixture
def make_namespace(control_plane: ControlPlane) -> Iterator[Callable[..., str]]:
    """Makes namespaces, whose deletion is begun after the test.

    `make_namespace(restricted=True)` enforces the restricted Pod Security Standard; other keyword
    arguments are labels.
    """
    made: list[str] = []

    def make(*, restricted: bool = False, **labels: str) -> str:
        name = f"test-{secrets.token_hex(4)}"
        if restricted:
            labels["pod-security.kubernetes.io/enforce"] = "restricted"
        body = {"metadata": {"name": name, "labels": labels}}
        control_plane.api.post("/api/v1/namespaces", body)
        made.append(name)
        # Pods are refused until a controller has made these.
        root = f"/api/v1/namespaces/{name}"
        for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
            eventually(partial(control_plane.api.exists, f"{root}/{path}"))
        return name

    yield make
    for name in made:
        control_plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def namespace(make_namespace: Callable[..., str]) -> str:
    """A namespace of this test's own."""
    return make_namespace()
