"""Whatever the interleaving, greedy tokens are those of the whole transformers model run alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from redserve.modeling.device_slab import DeviceSlab
from redserve.modeling.parts import load_language
from redserve_llm.detokenizer import Vocabulary
from redserve_llm.runner.kv_cache import KVCache
from redserve_llm.runner.model_runner import TorchRunner
from tests.llm.harness import Driver, Job
from tests.llm.prompts import Prompt, halves, make_prompt
from tests.support.tiny_checkpoints import TINY_FAMILIES, tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from redserve_llm.runner.interface import ItemRows
NUM_IMAGES = (2, 0, 1, 8, 0, 3, 1)
BLOCK = 8
ROOMY = 400


@pytest.fixture(scope="module", params=sorted(TINY_FAMILIES))
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_checkpoint(request.param, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def prompts(path: Path) -> list[Prompt]:
    return [
        make_prompt(path, seed, num_images, 5 + seed) for seed, num_images in enumerate(NUM_IMAGES)
    ]


@pytest.fixture(scope="module")
def part(path: Path) -> Any:
    return load_language(path)


class Bench:
    """Makes drivers for one family."""

    def __init__(self, path: Path, part: Any) -> None:
        self.part = part
        self.vocabulary = Vocabulary(halves(path)[2].tokenizer)

    def driver(self, *, num_blocks: int = ROOMY, **more: Any) -> Driver:
        part = self.part
        cache = KVCache(part.kv_layers, num_blocks, BLOCK, part.dtype, part.device)
        return Driver(
            TorchRunner(part, cache),
            self.vocabulary,
            num_blocks=num_blocks,
            block_size=BLOCK,
            atomic_items=part.family.bidirectional_items,
            **more,
        )


@pytest.fixture(scope="module")
def bench(path: Path, part: Any) -> Bench:
    return Bench(path, part)


def _jobs(prompts: list[Prompt]) -> list[Job]:
    return [
        Job(prompt.request(f"r{index}"), prompt.item_rows) for index, prompt in enumerate(prompts)
    ]


def _check(driver: Driver, prompts: list[Prompt], *, on_device: bool = False) -> None:
    jobs = _jobs(prompts)
    if on_device:
        jobs = [Job(job.request, partial(_device_rows, job)) for job in jobs]
    recorder = driver.run(jobs)
    for job, prompt in zip(jobs, prompts, strict=True):
        assert tuple(recorder.tokens[job.request.key]) == prompt.answer, job.request.key


@pytest.mark.parametrize(
    ("budget", "min_chunk"), [(7, 1), (23, 16), (64, 5), (4096, 16)], ids=lambda value: str(value)
)
def test_any_budget(bench: Bench, prompts: list[Prompt], budget: int, min_chunk: int) -> None:
    _check(bench.driver(seed=budget, budget=budget, min_chunk=min_chunk), prompts)


def test_preemption_in_a_tiny_cache(bench: Bench, prompts: list[Prompt]) -> None:
    """The longest comes first and waits for its embeddings while the others take the blocks."""
    longest_first = sorted(prompts, key=lambda prompt: -len(prompt.token_ids))
    longest = len(longest_first[0].token_ids) + len(longest_first[0].answer)
    num_preemptions = 0
    for seed in range(3):
        driver = bench.driver(
            num_blocks=-(-longest // BLOCK) + seed,
            seed=seed,
            budget=48,
            arrivals=1.0,
            deliveries=0.3,
            drops=0.1,
            reserve_ratio=0.0,
            reserve_prompts=False,
        )
        _check(driver, longest_first)
        num_preemptions += driver.scheduler.stats().preemptions_total
    assert num_preemptions > 0


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_embeddings_late_doubled_and_taken_back(
    bench: Bench, prompts: list[Prompt], on_device: bool
) -> None:
    driver = bench.driver(seed=11, budget=40, min_chunk=3, drops=0.3)
    _check(driver, prompts, on_device=on_device)


def test_the_prefix_cache_changes_nothing(bench: Bench, prompts: list[Prompt]) -> None:
    driver = bench.driver(seed=5, budget=64)
    _check(driver, prompts)
    again = _jobs(prompts)
    jobs = [Job(_renamed(job.request, "again"), job.rows) for job in again]
    recorder = driver.run(jobs)
    assert driver.scheduler.stats().prefix_hit_tokens_total > 0
    for job, prompt in zip(jobs, prompts, strict=True):
        assert tuple(recorder.tokens[job.request.key]) == prompt.answer


def _device_rows(job: Job, index: int) -> ItemRows:
    """The rows of an item, in memory that the host has no view on."""
    rows = job.rows(index)
    data = np.asarray(rows.data)
    slab = DeviceSlab(len(data), torch.device("cpu"))
    slab.write(0, data.tobytes())
    return replace(rows, data=slab.piece(0, len(data)))


def _renamed(request: Any, name: str) -> Any:
    return replace(request, key=replace(request.key, request_id=name + request.key.request_id))
