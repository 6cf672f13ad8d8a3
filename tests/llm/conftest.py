"""A running replica for each test that asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.llm.service import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.llm.service import Service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as service:
        yield service
