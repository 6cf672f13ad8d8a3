"""Short words for tests that drive a scheduler by hand."""

from __future__ import annotations

from redserve.domain import Item, SamplingParams, SequenceKey, SequenceRequest, Span
from redserve.scheduling import FixedBudget, MicroBatch, Outcome, Scheduler, SchedulerConfig


def text(name: str, tokens: int | tuple[int, ...], max_tokens: int = 1) -> SequenceRequest:
    """A request without items; a number stands for that many equal tokens."""
    token_ids = tokens if isinstance(tokens, tuple) else (1,) * tokens
    return SequenceRequest(SequenceKey(name), token_ids, (), SamplingParams(max_tokens=max_tokens))


def picture(
    name: str,
    before: int,
    rows: int,
    after: int,
    max_tokens: int = 1,
    content: bytes | None = None,
) -> SequenceRequest:
    """A request with one item between text."""
    item = Item(0, content or name.encode(), rows, (Span(before, rows),))
    token_ids = (1,) * before + (9,) * rows + (1,) * after
    return SequenceRequest(
        SequenceKey(name), token_ids, (item,), SamplingParams(max_tokens=max_tokens)
    )


def make_scheduler(num_blocks: int = 100, budget: int = 64, **switches: object) -> Scheduler:
    """Blocks of 4; nothing reserved unless said."""
    values = {"block_size": 4, "reserve_ratio": 0.0, "reserve_prompts": False, **switches}
    config = SchedulerConfig(num_blocks=num_blocks, **values)  # type: ignore[arg-type]
    return Scheduler(config, FixedBudget(budget))


def schedule(scheduler: Scheduler) -> MicroBatch:
    batch = scheduler.schedule()
    assert batch is not None
    return batch


def shape(batch: MicroBatch | None) -> list[tuple[str, int, int]]:
    """(name, start, end) of every chunk."""
    assert batch is not None
    return [(chunk.key.request_id, chunk.start, chunk.end) for chunk in batch.chunks]


def update(scheduler: Scheduler, batch: MicroBatch, token: int = 1, finished: str = "") -> None:
    """Every sampling chunk gives `token`; the sequence named `finished` ends."""
    outcomes = {
        chunk.key: Outcome(token, chunk.key.request_id == finished)
        for chunk in batch.chunks
        if chunk.samples
    }
    scheduler.update(batch.batch_id, outcomes)


def step(scheduler: Scheduler) -> list[tuple[str, int, int]]:
    """Schedule and update; the shape of the batch."""
    batch = schedule(scheduler)
    update(scheduler, batch)
    return shape(batch)


def drain(scheduler: Scheduler, most: int = 1000) -> None:
    """Run until nothing can."""
    for _ in range(most):
        batch = scheduler.schedule()
        if batch is None:
            return
        update(scheduler, batch)
    raise AssertionError("no end in sight")
