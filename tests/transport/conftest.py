from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from redserve.spec.ucx import ucx_environment
from tests.transport.links import Link, linked, make_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BACKENDS = ("inproc", "grpc", "tcp")


@pytest.fixture(scope="session", autouse=True)
def _ucx() -> None:
    """UCX reads its environment when the first agent is made."""
    for name, value in ucx_environment("tcp", net_devices="lo").items():
        os.environ.setdefault(name, value)


@pytest.fixture(params=BACKENDS)
def kind(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
async def link(kind: str) -> AsyncIterator[Link]:
    async with linked(make_link(kind)) as both:
        yield both
