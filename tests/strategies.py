"""Hypothesis strategies for the words of the domain, and how hard to try."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from redserve.domain import Item, SamplingParams, SequenceKey, SequenceRequest, Span


def effort(num_examples: int) -> settings:
    """So many examples, times 20 under `pytest tests/scheduling --hypothesis-profile=thorough`."""
    factor = settings.default.max_examples / 100 if settings.default else 1
    return settings(
        max_examples=int(num_examples * factor),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],  # the machine may be busy
    )


@st.composite
def prompts(
    draw: st.DrawFn, most_text: int = 12, most_items: int = 3, most_spans: int = 3
) -> tuple[tuple[int, ...], tuple[Item, ...]]:
    """Tokens of a prompt that is not empty, and its items; an item may have several spans."""
    token_ids = [0] * draw(st.integers(0, most_text))
    items = []
    for index in range(draw(st.integers(0, most_items))):
        spans = []
        for n in range(draw(st.integers(1, most_spans))):
            if n:
                token_ids.extend([0] * draw(st.integers(1, 3)))
            spans.append(Span(len(token_ids), draw(st.integers(1, 9))))
            token_ids.extend([1] * spans[-1].length)
        num_rows = sum(span.length for span in spans)
        content = draw(st.sampled_from([b"a", b"b", b"c"])) + bytes([num_rows, len(spans)])
        items.append(Item(index, content, num_rows, tuple(spans)))
        token_ids.extend([0] * draw(st.integers(0, most_text)))
    return tuple(token_ids) or (0,), tuple(items)


@st.composite
def requests(draw: st.DrawFn, request_id: str = "r") -> SequenceRequest:
    """A request that is in order."""
    token_ids, items = draw(prompts())
    sampling = SamplingParams(max_tokens=draw(st.integers(1, 12)))
    return SequenceRequest(SequenceKey(request_id), token_ids, items, sampling)
