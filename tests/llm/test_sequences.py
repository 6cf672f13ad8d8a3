"""What one sequence may ask for, on a real tiny model: seeds, penalties, resuming, odd tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from redserve.domain import FinishReason, SamplingParams, SequenceKey, SequenceRequest
from redserve.errors import InvalidArgument
from redserve.modeling.parts import load_language
from redserve_llm.detokenizer import Vocabulary
from redserve_llm.notices import Ended
from redserve_llm.runner.kv_cache import KVCache
from redserve_llm.runner.model_runner import TorchRunner
from tests.llm.harness import Driver, Job, Recorder
from tests.llm.prompts import Prompt, halves, make_prompt
from tests.support.tiny_checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 8
SAMPLED: dict[str, Any] = {"temperature": 1.2, "top_k": 40, "top_p": 0.95, "seed": 7}


@pytest.fixture(scope="module", params=["qwen3_vl", "gemma3"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_checkpoint(request.param, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def prompts(path: Path) -> list[Prompt]:
    return [make_prompt(path, seed, num_images, 12) for seed, num_images in enumerate((2, 0, 3, 1))]


@pytest.fixture(scope="module")
def part(path: Path) -> Any:
    return load_language(path)


def _driver(path: Path, part: Any, num_blocks: int = 200, **more: Any) -> Driver:
    cache = KVCache(part.kv_layers, num_blocks, BLOCK, part.dtype, part.device)
    return Driver(
        TorchRunner(part, cache),
        Vocabulary(halves(path)[2].tokenizer),
        num_blocks=num_blocks,
        block_size=BLOCK,
        atomic_items=part.family.bidirectional_items,
        **more,
    )


def _run(driver: Driver, jobs: list[Job]) -> tuple[Recorder, list[list[int]]]:
    recorder = driver.run(jobs)
    return recorder, [recorder.tokens.get(job.request.key, []) for job in jobs]


def test_seeded_sampling_survives_batching_and_preemption(
    path: Path, part: Any, prompts: list[Prompt]
) -> None:
    jobs = [
        Job(prompt.request(f"r{n}", **{**SAMPLED, "seed": n, "max_tokens": 12}), prompt.item_rows)
        for n, prompt in enumerate(prompts)
    ]
    alone = [_run(_driver(path, part), [job])[1][0] for job in jobs]
    assert len({tuple(tokens) for tokens in alone}) == len(jobs)
    assert all(tokens != list(p.answer) for tokens, p in zip(alone, prompts, strict=True))
    longest = max(len(prompt.token_ids) for prompt in prompts) + 12
    tight = _driver(
        path, part, -(-longest // BLOCK) + 1, seed=2, budget=31, arrivals=1.0, deliveries=0.3,
        reserve_ratio=0.0, reserve_prompts=False,
    )  # fmt: skip
    assert _run(tight, jobs)[1] == alone
    assert tight.scheduler.stats().preemptions_total > 0


@pytest.mark.parametrize(
    "sampling",
    [{}, SAMPLED, {"repetition_penalty": 1.3}, {"frequency_penalty": 0.8, "presence_penalty": 0.3}],
    ids=["greedy", "seeded", "repetition", "frequency"],
)
def test_a_moved_sequence_goes_on_as_it_would_have(
    path: Path, part: Any, prompts: list[Prompt], sampling: dict[str, Any]
) -> None:
    prompt = prompts[0]
    request = prompt.request("r", **{**sampling, "max_tokens": 12})
    recorder, [whole] = _run(_driver(path, part), [Job(request, prompt.item_rows)])
    text = recorder.texts[request.key]
    for cut in (1, 5, 11):
        moved = replace(request, resume_token_ids=tuple(whole[:cut]))
        again, [rest] = _run(_driver(path, part, budget=13), [Job(moved, prompt.item_rows)])
        assert rest == whole[cut:]
        assert text.endswith(again.texts[request.key])
        ended = again.ends[request.key]
        assert isinstance(ended, Ended)
        assert ended.usage.num_output_tokens == 12


def test_a_generated_image_token_is_an_ordinary_token(
    path: Path, part: Any, prompts: list[Prompt]
) -> None:
    """Alone it is embedded like any other; beside other requests' rows it must not take one."""
    words = tuple(range(20, 50))
    image = part.image_token_id
    request = SequenceRequest(
        SequenceKey("odd"),
        words,
        (),
        SamplingParams(max_tokens=12),
        resume_token_ids=(30, image, 31, image),
    )
    job = Job(request, lambda index: pytest.fail("it has no items"))
    _, [alone] = _run(_driver(path, part), [job])
    others = [Job(p.request(f"r{n}"), p.item_rows) for n, p in enumerate(prompts)]
    for seed in range(3):
        crowded = _driver(path, part, seed=seed, budget=300, arrivals=1.0, deliveries=1.0)
        _, tokens = _run(crowded, [*others[:1], job, *others[1:]])
        assert tokens[1] == alone
        del tokens[1]
        assert tokens == [list(prompt.answer) for prompt in prompts]


def test_end_tokens_and_their_exceptions(path: Path, part: Any, prompts: list[Prompt]) -> None:
    prompt = prompts[1]
    end = prompt.answer[4]
    first = prompt.answer.index(end) + 1

    def run(**sampling: Any) -> tuple[list[int], FinishReason]:
        driver = _driver(path, part, end_token_ids=(end,))
        request = prompt.request("r", **{"max_tokens": 12, **sampling})
        recorder, [tokens] = _run(driver, [Job(request, prompt.item_rows)])
        ended = recorder.ends[request.key]
        assert isinstance(ended, Ended)
        return tokens, ended.reason

    assert run() == (list(prompt.answer[:first]), FinishReason.STOP)
    assert run(ignore_eos=True) == (list(prompt.answer), FinishReason.LENGTH)
    own = prompt.answer[0]
    assert run(stop_token_ids=(own,)) == ([own], FinishReason.STOP)
    assert run(max_tokens=2, ignore_eos=True) == (list(prompt.answer[:2]), FinishReason.LENGTH)


def test_logprobs_come_with_every_token(path: Path, part: Any, prompts: list[Prompt]) -> None:
    driver = _driver(path, part)
    outputs: list[Any] = []
    notify = driver.recorder.notify

    def keep(notices: Any) -> None:
        outputs.extend(t for notice in notices for t in getattr(notice, "tokens", ()))
        notify(notices)

    driver.recorder.notify = keep  # type: ignore[method-assign]
    _run(driver, [Job(prompts[1].request("r", num_logprobs=2), prompts[1].item_rows)])
    assert len(outputs) == len(prompts[1].answer)
    for token in outputs:
        assert token.logprob <= 0
        assert token.top[0].token_id == token.token_id  # greedy
        assert token.top[0].logprob == token.logprob >= token.top[1].logprob
        assert token.top[0].text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"token_ids": (20, 10**6)}, "token_ids"),
        ({"resume_token_ids": (10**6,)}, "resume_token_ids"),
        ({"items": ()}, "items"),
    ],
)
def test_what_would_fail_in_the_middle_of_a_batch_is_refused_at_once(
    path: Path, part: Any, prompts: list[Prompt], changes: dict[str, Any], field: str
) -> None:
    request = replace(prompts[0].request("r"), **changes)
    if field == "token_ids":
        request = replace(request, items=())
    driver = _driver(path, part)
    with pytest.raises(InvalidArgument) as caught:
        driver.engine.add(request)
    assert caught.value.field == field
    assert driver.scheduler.is_idle


def test_a_missing_grid_is_refused(path: Path, part: Any, prompts: list[Prompt]) -> None:
    if not part.family.mrope:
        pytest.skip("positions of this family have one axis")
    request = prompts[0].request("r")
    items = tuple(replace(item, grid=()) for item in request.items)
    with pytest.raises(InvalidArgument, match="grid"):
        _driver(path, part).engine.add(replace(request, items=items))
