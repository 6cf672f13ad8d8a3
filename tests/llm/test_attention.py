"""The paged backend against attention written down plainly."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from redserve.errors import InternalError, UnsupportedModel
from redserve.modeling.language import KVLayer
from redserve_llm.attention import cpu_sdpa
from redserve_llm.attention.cpu_sdpa import attend
from redserve_llm.attention.interface import paged_attention
from redserve_llm.attention.step import (
    AttentionStep,
    SequencePart,
    attention_step,
    current_step,
)
from redserve_llm.runner.kv_cache import KVCache, block_bytes

if TYPE_CHECKING:
    from torch import Tensor

BLOCK, HEADS, KV_HEADS, DIM, VALUE_DIM = 4, 6, 2, 8, 5
LAYER = KVLayer(0, KV_HEADS, DIM, VALUE_DIM, None)
NUM_BLOCKS = 40


def _plain(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    part: SequencePart,
    window: int | None,
    softcap: float | None,
    scaling: float,
) -> Tensor:
    """One row and one position at a time, in float64."""
    num_rows = query.shape[1]
    out = torch.zeros(num_rows, HEADS, VALUE_DIM, dtype=torch.float64)
    for row in range(num_rows):
        at = part.position_start + row
        for head in range(HEADS):
            kv = head // (HEADS // KV_HEADS)
            scores = torch.full((part.num_context,), -torch.inf, dtype=torch.float64)
            for position in range(part.num_context):
                together = any(
                    low <= at < high and low <= position < high for low, high in part.bidirectional
                )
                if position > at and not together:
                    continue
                if window is not None and position <= at - window:
                    continue
                score = query[head, row].double() @ keys[position, kv].double() * scaling
                scores[position] = (
                    score if softcap is None else softcap * torch.tanh(score / softcap)
                )
            out[row, head] = scores.softmax(0) @ values[:, kv].double()
    return out


def _step(contexts: list[tuple[int, int, bool]], seed: int) -> tuple[Any, ...]:
    """Sequences of (rows, context, scattered): their parts, cache, and contents by position."""
    generator = torch.Generator().manual_seed(seed)
    cache = KVCache([LAYER], NUM_BLOCKS, BLOCK, torch.float32, torch.device("cpu"))
    keys, values = cache.layer(0)
    keys.fill_(torch.nan)  # whatever nobody wrote must not be read
    values.fill_(torch.nan)
    free = torch.randperm(NUM_BLOCKS, generator=generator).tolist()
    runs = list(range(NUM_BLOCKS))
    parts, contents, start = [], [], 0
    for num_rows, num_context, scattered in contexts:
        count = -(-num_context // BLOCK)
        if scattered:
            table = tuple(free[:count])
        else:
            first = next(n for n in runs if all(m in free for m in range(n, n + count)))
            table = tuple(range(first, first + count))
        free = [block for block in free if block not in table]
        parts.append(SequencePart(start, start + num_rows, num_context, table))
        start += num_rows
        k = torch.randn(num_context, KV_HEADS, DIM, generator=generator)
        v = torch.randn(num_context, KV_HEADS, VALUE_DIM, generator=generator)
        for position in range(num_context):
            block, offset = table[position // BLOCK], position % BLOCK
            keys[block, offset], values[block, offset] = k[position], v[position]
        contents.append((k, v))
    query = torch.randn(HEADS, start, DIM, generator=generator)
    step = AttentionStep(cache, torch.empty(0, dtype=torch.int64), tuple(parts), attend)
    return step, keys, values, query, contents


sequences = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 20), st.booleans()), min_size=1, max_size=3
)


@settings(max_examples=60, deadline=None)
@given(
    sequences=sequences,
    window=st.sampled_from([None, 1, 3, 7, 100]),
    softcap=st.sampled_from([None, 2.0]),
    tile=st.sampled_from([1, 16, 1 << 22]),
    seed=st.integers(0, 1000),
)
def test_every_row_sees_what_it_should(
    sequences: list[tuple[int, int, bool]],
    window: int | None,
    softcap: float | None,
    tile: int,
    seed: int,
) -> None:
    contexts = [(rows, rows + before, scattered) for rows, before, scattered in sequences]
    step, keys, values, query, contents = _step(contexts, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_sdpa, "MAX_MASK_ELEMENTS", tile)
        got = attend(query, keys, values, step, scaling=0.3, sliding_window=window, softcap=softcap)
    for part, (k, v) in zip(step.parts, contents, strict=True):
        rows = slice(part.row_start, part.row_end)
        want = _plain(query[:, rows], k, v, part, window, softcap, 0.3)
        torch.testing.assert_close(got[rows].double(), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 3, 6])
@pytest.mark.parametrize("tile", [1, 20, 1 << 22])
def test_spans_are_bidirectional_inside_only(
    window: int | None, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_sdpa, "MAX_MASK_ELEMENTS", tile)
    step, keys, values, query, contents = _step([(9, 14, True)], 3)
    part = step.parts[0]
    part.bidirectional = ((6, 9), (9, 13))
    got = attend(query, keys, values, step, scaling=None, sliding_window=window, softcap=None)
    k, v = contents[0]
    want = _plain(query, k, v, part, window, None, DIM**-0.5)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-4)


def test_masks_are_made_once_per_window() -> None:
    step, keys, values, query, _ = _step([(5, 14, True)], 3)
    for _ in range(3):
        for window in (None, 4):
            attend(query, keys, values, step, scaling=None, sliding_window=window, softcap=None)
    assert len(step.parts[0].masks) == 2


def test_memory_is_bounded_for_long_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mask is larger than a tile, and none is kept when there are several."""
    sizes = []
    make_mask = cpu_sdpa._make_mask

    def spy(*args: Any) -> Any:
        mask = make_mask(*args)
        sizes.append(0 if mask is None else mask.numel())
        return mask

    monkeypatch.setattr(cpu_sdpa, "_make_mask", spy)
    monkeypatch.setattr(cpu_sdpa, "MAX_MASK_ELEMENTS", 64)
    step, keys, values, query, _ = _step([(20, 30, True)], 1)
    attend(query, keys, values, step, scaling=None, sliding_window=None, softcap=None)
    assert len(sizes) == 10
    assert max(sizes) <= 64
    assert not step.parts[0].masks


def test_two_engines_never_see_each_others_step() -> None:
    with pytest.raises(InternalError, match="outside a forward pass"):
        current_step()
    step, *_ = _step([(1, 1, False)], 0)
    seen: list[BaseException] = []

    def other() -> None:
        try:
            current_step()
        except InternalError as error:
            seen.append(error)

    with attention_step(step):
        assert current_step() is step
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(seen) == 1


@pytest.mark.parametrize("term", ["s_aux", "position_bias"])
def test_terms_that_nobody_computes_are_refused(term: str) -> None:
    empty = torch.empty(0)
    changes: dict[str, Any] = {term: empty}
    with pytest.raises(UnsupportedModel, match=term):
        paged_attention(torch.nn.Module(), empty, empty, empty, None, **changes)


def test_block_bytes_are_what_the_cache_takes() -> None:
    layers = [LAYER, KVLayer(1, 1, DIM, DIM, None)]
    cache = KVCache(layers, 3, BLOCK, torch.bfloat16, torch.device("cpu"))
    taken = sum(
        tensor.numel() * tensor.element_size() for n in range(2) for tensor in cache.layer(n)
    )
    assert cache.num_bytes == taken == 3 * block_bytes(layers, BLOCK, torch.bfloat16)
