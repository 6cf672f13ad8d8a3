from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.transport.links import Link, linked, make_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BACKENDS = ("inproc", "grpc")


@pytest.fixture(params=BACKENDS)
def kind(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
async def link(kind: str) -> AsyncIterator[Link]:
    async with linked(make_link(kind)) as both:
        yield both
