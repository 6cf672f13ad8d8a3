"""Scheduling must cost little, and no more for long prompts than for short ones."""

from __future__ import annotations

from statistics import median
from time import perf_counter

from redserve.scheduling import FixedBudget, Scheduler, SchedulerConfig
from tests.scheduling.drive import picture, text, update

NUM_RUNNING = 64


def step_seconds(num_tokens: int, num_waiting: int) -> float:
    """Median seconds of schedule and update with 64 decodes, blocks of 16, and a queue."""
    num_outputs = 60 + NUM_RUNNING * num_tokens // 4096
    config = SchedulerConfig(
        num_blocks=NUM_RUNNING * ((num_tokens + num_outputs) // 16 + 2),
        block_size=16,
        max_sequences=NUM_RUNNING,
    )
    scheduler = Scheduler(config, FixedBudget(4096))
    for n in range(NUM_RUNNING):
        scheduler.add(text(f"r{n}", (n,) * num_tokens, num_outputs))
    for n in range(num_waiting):
        scheduler.add(picture(f"w{n}", 0, 100, 1))
    seconds = []
    while not scheduler.is_idle:
        begin = perf_counter()
        batch = scheduler.schedule()
        if batch is None:
            break
        update(scheduler, batch)
        if sum(chunk.is_decode for chunk in batch.chunks) == NUM_RUNNING:
            seconds.append(perf_counter() - begin)
    assert len(seconds) > 30
    return median(seconds)


def test_a_step_of_64_decodes_takes_no_time_to_speak_of() -> None:
    short = step_seconds(256, num_waiting=0)
    # 0.5 ms on one core of a machine with nothing else to do; a wide margin for others.
    assert short < 5e-3
    assert step_seconds(8192, num_waiting=1000) < 4 * short
