"""Encoders ask the engine whether it still wants what they hold: real ones on both sides.

Rounds are short here, so that they ask all the time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redserve_encoder import still_wanted
from redserve_encoder.holds import Holds
from redserve_encoder.llm_clients import LlmClients
from tests.e2e.line import running_line
from tests.e2e.test_equality import ask_all, questions
from tests.encoder.support import until
from tests.support.tiny_checkpoints import reference_generate, tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.line import Line

NUM_TOKENS = 8
NUM_QUESTIONS = 50


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still_wanted, "ROUND_S", 0.001)
    monkeypatch.setattr(still_wanted, "FIRST_S", 0.0)
    monkeypatch.setattr(still_wanted, "LONGEST_S", 0.0)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the engine has answered, in order."""
    told: list[bool] = []
    ask = LlmClients.still_wants

    async def noted(self: LlmClients, *asked: Any) -> bool:
        wanted = await ask(self, *asked)
        told.append(wanted)
        return wanted

    monkeypatch.setattr(LlmClients, "still_wants", noted)
    return told


def num_held(line: Line) -> int:
    return sum(encoder.publisher.num_held for encoder in line.encoders)


async def test_what_was_fetched_is_wanted_no_more_though_nobody_heard_of_it(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch, answers: list[bool]
) -> None:
    lost: list[str] = []
    monkeypatch.setattr(Holds, "_released", lambda _, key, __: lost.append(key))
    path = tiny_checkpoint("qwen2_5_vl", checkpoints)
    expected = [
        reference_generate(path, messages, images, NUM_TOKENS) for messages, images in questions(7)
    ]
    async with running_line(path) as line:
        assert await ask_all(line, 7) == expected
        await until(lambda: num_held(line) == 0)
        line.assert_nothing_is_left()
    assert lost
    assert False in answers


async def test_what_waits_for_room_is_wanted(checkpoints: Path, answers: list[bool]) -> None:
    path = tiny_checkpoint("qwen2_5_vl", checkpoints)
    expected = [
        reference_generate(path, messages, images, NUM_TOKENS) for messages, images in questions(7)
    ]
    async with running_line(path) as line:
        pool = line.engine.pool
        filler = pool.alloc(pool.num_bytes)
        asking = asyncio.create_task(ask_all(line, 7))
        await until(lambda: answers.count(True) >= NUM_QUESTIONS)
        assert num_held(line) > 0
        filler.free()
        assert await asking == expected
        await until(lambda: num_held(line) == 0)
        line.assert_nothing_is_left()
