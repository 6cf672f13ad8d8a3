"""What is served equals the whole transformers model run alone, token for token."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch

from redserve.modeling.device_slab import CudaMemory
from redserve.scheduling import SchedulerConfig
from redserve.spec.ucx import ucx_environment
from redserve.transport.placement import Placement
from tests.e2e.line import KV_CACHE_BYTES, running_line
from tests.llm.prompts import conversation, picture
from tests.support.tiny_checkpoints import TINY_FAMILIES, reference_generate, tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.line import Line

NUM_TOKENS = 8
NUM_TOKENS_TIGHT = 40
NUM_IMAGES = (2, 0, 8, 1, 3, 0, 5, 4)
ON_DEVICE = Placement("vram", "a test says so")

# Memory that does not hold the requests that may run at once: sequences are preempted, and the
# embeddings that they had used are delivered again.
TIGHT: dict[str, Any] = {"token_budget": 7, "min_chunk": 1, "max_sequences": 8}


def questions(start: int) -> list[tuple[list[dict[str, Any]], list[Any]]]:
    made = []
    for offset, num_images in enumerate(NUM_IMAGES):
        seed = start + offset
        images = [picture(seed * 10 + index) for index in range(num_images)]
        made.append((conversation(seed, num_images), images))
    return made


async def ask_all(
    line: Line, start: int, *, num_tokens: int = NUM_TOKENS, turns_apart: int = 20
) -> list[list[int]]:
    """All questions, each some turns of the loop (not of the clock) after the one before."""

    async def ask(turns: int, messages: list[dict[str, Any]], images: list[Any]) -> list[int]:
        for _ in range(turns):
            await asyncio.sleep(0)
        return (await line.ask(messages, images, num_tokens)).token_ids

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(ask(number * turns_apart, messages, images))
            for number, (messages, images) in enumerate(questions(start))
        ]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("family", sorted(TINY_FAMILIES))
async def test_served_tokens_equal_the_whole_model(family: str, checkpoints: Path) -> None:
    path = tiny_checkpoint(family, checkpoints)
    expected = [
        reference_generate(path, messages, images, NUM_TOKENS) for messages, images in questions(7)
    ]
    async with running_line(path) as line:
        assert await ask_all(line, 7) == expected
        # Again: the prefix cache and the encoders' caches answer now.
        assert await ask_all(line, 7) == expected
        line.assert_nothing_is_left()


@pytest.mark.parametrize("family", ["gemma3", "idefics3", "qwen3_vl"])
async def test_served_tokens_are_equal_over_nixl(
    family: str, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # UCX reads its environment when an agent is made.
    for name, value in ucx_environment("tcp", net_devices="lo").items():
        monkeypatch.setenv(name, value)
    path = tiny_checkpoint(family, checkpoints)
    expected = [
        reference_generate(path, messages, images, NUM_TOKENS) for messages, images in questions(7)
    ]
    tcp = {"transport": "tcp"}
    async with running_line(path, encoder=tcp, engine=tcp) as line:
        assert line.engine._puller.transport == "tcp"
        assert await ask_all(line, 7) == expected
        line.assert_nothing_is_left()


@pytest.mark.parametrize("family", ["gemma3", "qwen3_vl"])
async def test_served_tokens_are_equal_with_embeddings_in_device_memory(
    family: str, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The CPU's memory, which nobody may look at from the host. The peers have no RDMA: they read
    # and write it by gRPC.
    memory = CudaMemory(torch.device("cpu"))
    for module in ("redserve_encoder.checkpoint_vision", "redserve_llm.checkpoint_model"):
        monkeypatch.setattr(f"{module}.device_memory", lambda _: memory)
    monkeypatch.setattr("redserve.transport.placement.choose", lambda *_, **__: ON_DEVICE)
    path = tiny_checkpoint(family, checkpoints)
    expected = [
        reference_generate(path, messages, images, NUM_TOKENS) for messages, images in questions(7)
    ]
    async with running_line(path) as line:
        pools = [line.engine.pool, *(encoder.pool for encoder in line.encoders)]
        assert [pool.slab.memory for pool in pools] == ["vram"] * 3
        assert await ask_all(line, 7) == expected
        assert await ask_all(line, 7) == expected
        line.assert_nothing_is_left()


@pytest.mark.parametrize("family", ["gemma3", "idefics3", "llava", "mistral3", "qwen3_vl"])
async def test_served_tokens_are_equal_when_memory_is_tight(
    family: str, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Admission that leaves no room for what runs: preemption becomes the common case.
    careless = functools.partial(SchedulerConfig, reserve_ratio=0.0, reserve_prompts=False)
    monkeypatch.setattr("redserve_llm.replica.SchedulerConfig", careless)
    path = tiny_checkpoint(family, checkpoints)
    expected = [
        reference_generate(path, messages, images, NUM_TOKENS_TIGHT)
        for messages, images in questions(70)
    ]
    async with running_line(path) as probe:
        longest = max(
            [
                (await probe.ask(messages, images, 1)).finished.usage.num_prompt_tokens
                for messages, images in questions(70)
            ]
        )
        block_bytes = KV_CACHE_BYTES // probe.engine.scheduler.stats().blocks_total
    num_blocks = -(-(longest + NUM_TOKENS_TIGHT) // 16)
    engine = {**TIGHT, "kv_cache_bytes": num_blocks * block_bytes}
    async with running_line(path, engine=engine) as line:
        answers = await ask_all(line, 70, num_tokens=NUM_TOKENS_TIGHT, turns_apart=0)
        assert answers == expected
        assert line.engine.scheduler.stats().preemptions_total > 0
        line.assert_nothing_is_left()
