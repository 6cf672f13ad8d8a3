"""What is checked of NIXL's metadata before the library sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redserve.transport.nixl.library import Agent, ForeignMetadata
from redserve.transport.slab import HostSlab

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "encoder-0-1a2b3c4d5e6f"


@pytest.fixture(scope="module")
def agents() -> Iterator[tuple[Agent, Agent]]:
    """One that looks, and one that is looked at."""
    made = (
        Agent("consumer-1", HostSlab(4096), serves=False),
        Agent(NAME, HostSlab(4096), serves=False),
    )
    yield made
    for agent in made:
        agent.close()


def test_metadata_of_whom_it_names_is_good(agents: tuple[Agent, Agent]) -> None:
    here, there = agents
    here.check_metadata(NAME, there.metadata)


@pytest.mark.parametrize(
    "name", [NAME[:-1], NAME[1:], "encoder", "e", f"{NAME}7", NAME[::-1], "consumer-1"]
)
def test_a_name_that_is_only_like_it_is_another_s(agents: tuple[Agent, Agent], name: str) -> None:
    here, there = agents
    with pytest.raises(ForeignMetadata, match=name):
        here.check_metadata(name, there.metadata)


@pytest.mark.parametrize("cut", [0, 1, 12, 20, 30])
def test_a_beginning_is_not_enough(agents: tuple[Agent, Agent], cut: int) -> None:
    here, there = agents
    with pytest.raises(ForeignMetadata):
        here.check_metadata(NAME, there.metadata[:cut])
