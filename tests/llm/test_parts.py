"""Small parts: limits, memory, timelines, the checkpoint's sampling, flags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from redserve.domain import SamplingParams, SequenceKey
from redserve.errors import ConfigError, ContextTooLong, InvalidArgument, UnsupportedModel
from redserve.scheduling import CostModelBudget, FixedBudget, ScheduledChunk
from redserve.spec.settings import LLMSettings
from redserve.telemetry.timeline import overlap_ratio
from redserve_llm.arguments import parse
from redserve_llm.budget import make_budget
from redserve_llm.delivery import RowShape
from redserve_llm.limits import RequestLimits
from redserve_llm.memory import GIB, MAX_CPU_BYTES, plan_cache
from redserve_llm.sampling_defaults import sampling_defaults
from redserve_llm.sequence_timeline import MAX_PREFILL_BARS, SequenceTimeline
from tests.llm.service import question

if TYPE_CHECKING:
    from pathlib import Path


def _settings(**changes: Any) -> LLMSettings:
    return LLMSettings(**changes)


LIMITS = RequestLimits(64, 4096, RowShape(2, 16), "float32", SamplingParams())


def test_max_tokens_are_cut_at_the_context() -> None:
    assert LIMITS.fit(question("r", max_tokens=1000).request).sampling.max_tokens == 64 - 5
    asked = question("r", max_tokens=7).request
    assert LIMITS.fit(asked) is asked


def test_a_prompt_as_long_as_the_context_is_refused() -> None:
    with pytest.raises(ContextTooLong, match=r"69 tokens.*at most 64"):
        LIMITS.fit(question("r", 4, rows_per_image=15).request)


def test_an_item_larger_than_the_arena_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="4096") as caught:
        LIMITS.fit(question("r", 1, rows_per_image=33).request)
    assert caught.value.field == "items[0]"
    LIMITS.fit(question("r", 1, rows_per_image=32).request)


def test_the_cache_takes_its_share() -> None:
    settings = _settings(memory_percent=50, block_size=16)
    plan = plan_cache(
        settings, block_bytes=1 << 20, max_positions=4096, free_bytes=80 * GIB, is_cpu=False
    )
    assert plan.num_blocks == 40 * 1024
    assert plan.max_model_length == 4096


def test_on_a_cpu_the_share_is_capped_unless_it_is_set() -> None:
    settings = _settings(memory_percent=50, block_size=16)
    plan = plan_cache(
        settings, block_bytes=1 << 20, max_positions=64, free_bytes=80 * GIB, is_cpu=True
    )
    assert plan.num_blocks == MAX_CPU_BYTES >> 20
    settings = _settings(kv_cache_bytes=3 * GIB, block_size=16)
    plan = plan_cache(
        settings, block_bytes=1 << 20, max_positions=64, free_bytes=80 * GIB, is_cpu=True
    )
    assert plan.num_blocks == 3 * 1024


def test_the_length_is_reduced_to_what_the_cache_holds() -> None:
    settings = _settings(kv_cache_bytes=10 << 20, block_size=16)
    plan = plan_cache(
        settings, block_bytes=1 << 20, max_positions=4096, free_bytes=GIB, is_cpu=True
    )
    assert (plan.num_blocks, plan.max_model_length) == (10, 160)
    settings = _settings(kv_cache_bytes=10 << 20, block_size=16, max_model_length=100)
    plan = plan_cache(
        settings, block_bytes=1 << 20, max_positions=4096, free_bytes=GIB, is_cpu=True
    )
    assert plan.max_model_length == 100


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (_settings(kv_cache_bytes=1000), "kv_cache_bytes"),
        (_settings(max_model_length=5000), "max_model_length"),
    ],
)
def test_what_cannot_be_is_said(settings: LLMSettings, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_cache(settings, block_bytes=1 << 20, max_positions=4096, free_bytes=GIB, is_cpu=True)
    assert caught.value.field == field


def test_the_budget_learns_only_with_a_target() -> None:
    guess = (1e-4, 1e-6, 0.0, 1e-6, 0.0)
    budget, observe = make_budget(_settings(token_budget=100), guess)
    assert isinstance(budget, FixedBudget)
    assert observe is None
    budget, observe = make_budget(_settings(token_budget=100, tpot_target_ms=20), guess)
    assert isinstance(budget, CostModelBudget)
    assert budget.tpot_target_s == 0.02
    assert observe is not None


def _chunk(
    start: int, end: int, *, samples: bool = False, is_decode: bool = False
) -> ScheduledChunk:
    ids = (1,) * (end - start)
    return ScheduledChunk(SequenceKey("r"), start, end, ids, (0,), (), samples, is_decode)


def test_bars_tell_queue_prefill_and_decode() -> None:
    timeline = SequenceTimeline("llm-0", 100)
    timeline.chunk(_chunk(0, 8), 150, 200)
    timeline.chunk(_chunk(8, 12, samples=True), 300, 400)
    timeline.chunk(_chunk(12, 13, samples=True, is_decode=True), 400, 450)
    timeline.chunk(_chunk(13, 14, samples=True, is_decode=True), 460, 500)
    bars = [(bar.name, bar.start_ns, bar.end_ns, bar.num_tokens) for bar in timeline.bars()]
    assert bars == [
        ("queue", 100, 150, 0),
        ("prefill", 150, 200, 8),
        ("prefill", 300, 400, 4),
        ("decode", 400, 500, 2),
    ]


def test_what_is_computed_again_is_marked() -> None:
    timeline = SequenceTimeline("llm-0", 0)
    timeline.chunk(_chunk(0, 8, samples=True), 10, 20)
    timeline.chunk(_chunk(0, 9, samples=True), 40, 50)
    assert [bar.detail for bar in timeline.bars() if bar.name == "prefill"] == ["", "recomputed"]


def test_many_chunks_become_few_bars_without_bridging_long_gaps() -> None:
    """Coalescing must not claim that prefill ran while it waited for an encoder."""
    timeline = SequenceTimeline("llm-0", 0)
    now = 0
    for index in range(500):
        now += 1 if index % 50 else 1000
        timeline.chunk(_chunk(index, index + 1), now, now + 10)
        now += 10
    bars = [bar for bar in timeline.bars() if bar.name == "prefill"]
    assert len(bars) == MAX_PREFILL_BARS
    assert sum(bar.num_tokens for bar in bars) == 500
    busy = sum(bar.end_ns - bar.start_ns for bar in bars)
    assert busy < 500 * 11
    assert overlap_ratio(bars) is None


def test_sampling_defaults_are_those_of_generate(tmp_path: Path) -> None:
    assert sampling_defaults(tmp_path, 99) == SamplingParams(top_k=50, max_tokens=99)
    file = tmp_path / "generation_config.json"
    file.write_text(
        json.dumps({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": None})
    )
    sampling = sampling_defaults(tmp_path, 99)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.6, 50, 0.9)
    file.write_text(json.dumps({"temperature": 0.6, "repetition_penalty": 1.05, "top_k": 1}))
    sampling = sampling_defaults(tmp_path, 99)
    assert (sampling.temperature, sampling.top_k, sampling.repetition_penalty) == (0.0, 1, 1.05)
    file.write_text("[1, 2]")
    with pytest.raises(UnsupportedModel):
        sampling_defaults(tmp_path, 99)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDSERVE_LLM_TOKEN_BUDGET", "7")
    monkeypatch.setenv("REDSERVE_LLM_NAME", "llm-3")
    settings = parse(["--token-budget", "9", "--prefix-cache", "false"])
    assert (settings.token_budget, settings.name, settings.prefix_cache) == (9, "llm-3", False)
    with pytest.raises(ConfigError) as caught:
        parse(["--token-budget", "none"])
    assert caught.value.field == "--token-budget"


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "--kv-cache-bytes" in shown
    assert "REDSERVE_LLM_KV_CACHE_BYTES" in shown
