"""One behaviour of the scheduler each, by hand."""

from __future__ import annotations

import pytest

from redserve.domain import Item, SamplingParams, SequenceKey, SequenceRequest, Span
from redserve.errors import ConfigError, ContextTooLong, InternalError, InvalidArgument
from redserve.scheduling import (
    Finished,
    FixedBudget,
    ItemsNeeded,
    Outcome,
    Preempted,
    Resumed,
    RowSlice,
    RowsReleased,
    Scheduler,
    SchedulerConfig,
)
from tests.scheduling.drive import (
    drain,
    make_scheduler,
    picture,
    schedule,
    shape,
    step,
    text,
    update,
)


def key(name: str) -> SequenceKey:
    return SequenceKey(name)


# -- order and budget ------------------------------------------------------------------------


def test_decodes_first_then_prefill_oldest_first_then_admission() -> None:
    scheduler = make_scheduler(budget=8)
    scheduler.add(text("a", 3, max_tokens=9))
    assert step(scheduler) == [("a", 0, 3)]
    scheduler.add(text("b", (2,) * 9, max_tokens=9))
    scheduler.add(text("c", (3,) * 9, max_tokens=9))
    assert step(scheduler) == [("a", 3, 4), ("b", 0, 7)]
    assert step(scheduler) == [("a", 4, 5), ("b", 7, 9), ("c", 0, 5)]
    assert step(scheduler) == [("a", 5, 6), ("b", 9, 10), ("c", 5, 9)]
    assert step(scheduler) == [("a", 6, 7), ("b", 10, 11), ("c", 9, 10)]


def test_who_waits_for_embeddings_is_passed_over_and_keeps_its_place() -> None:
    scheduler = make_scheduler(budget=8)
    scheduler.add(picture("a", 2, 6, 1))
    scheduler.add(text("b", 9))
    assert step(scheduler) == [("a", 0, 2), ("b", 0, 6)]
    scheduler.put_rows(key("a"), 0, 3)
    assert step(scheduler) == [("a", 2, 5), ("b", 6, 9)]
    assert scheduler.schedule() is None
    scheduler.put_rows(key("a"), 0, 6)
    assert step(scheduler) == [("a", 5, 9)]
    assert scheduler.is_idle


def test_chunks_of_one_sequence_sit_in_successive_micro_batches() -> None:
    scheduler = make_scheduler(budget=4, max_in_flight=3)
    scheduler.add(text("a", 10, max_tokens=2))
    batches = [schedule(scheduler) for _ in range(3)]
    assert [shape(b) for b in batches] == [[("a", 0, 4)], [("a", 4, 8)], [("a", 8, 10)]]
    assert [c.samples for b in batches for c in b.chunks] == [False, False, True]
    assert scheduler.schedule() is None  # three in flight
    update(scheduler, batches[0])
    assert scheduler.schedule() is None  # the next token is not known yet
    update(scheduler, batches[1])
    update(scheduler, batches[2])
    assert shape(scheduler.schedule()) == [("a", 10, 11)]


def test_decodes_are_spread_over_the_stages() -> None:
    scheduler = make_scheduler(max_in_flight=4)
    for n in range(10):
        scheduler.add(text(f"r{n}", 2, max_tokens=50))
    update(scheduler, schedule(scheduler))
    in_flight = [schedule(scheduler) for _ in range(4)]
    sizes = []
    for _ in range(40):
        sizes.append(in_flight[0].num_tokens)
        update(scheduler, in_flight.pop(0))
        in_flight.append(schedule(scheduler))
    assert set(sizes) == {2, 3}
    assert all(sum(sizes[n : n + 4]) == 10 for n in range(len(sizes) - 4))


def test_rotation_gives_every_decode_its_turn_when_the_budget_is_short() -> None:
    budget = FixedBudget(5)
    scheduler = Scheduler(SchedulerConfig(num_blocks=100, block_size=4), budget)
    for n in range(5):
        scheduler.add(text(f"r{n}", 1, max_tokens=40))
    step(scheduler)
    budget.num_tokens = 2
    seen: list[str] = []
    for _ in range(51):
        seen += [name for name, _, _ in step(scheduler)]
    counts = [seen.count(f"r{n}") for n in range(5)]
    assert max(counts) - min(counts) <= 1


def test_a_small_chunk_waits_while_decodes_run_but_not_for_an_empty_step() -> None:
    scheduler = make_scheduler(min_chunk=4)
    scheduler.add(text("a", 2, max_tokens=4))
    scheduler.add(picture("b", 6, 8, 1))
    assert step(scheduler) == [("a", 0, 2), ("b", 0, 6)]
    scheduler.put_rows(key("b"), 0, 3)
    assert step(scheduler) == [("a", 2, 3)]
    scheduler.put_rows(key("b"), 0, 4)
    assert step(scheduler) == [("a", 3, 4), ("b", 6, 10)]
    scheduler.put_rows(key("b"), 0, 6)
    assert step(scheduler) == [("a", 4, 5)]
    assert step(scheduler) == [("b", 10, 12)]
    scheduler.put_rows(key("b"), 0, 8)
    assert step(scheduler) == [("b", 12, 15)]  # to the end of the prompt


# -- rows ------------------------------------------------------------------------------------


def test_rows_are_named_by_item_and_released_after_their_chunk() -> None:
    scheduler = make_scheduler(budget=6)
    items = (Item(0, b"x", 5, (Span(1, 3), Span(5, 2))), Item(1, b"y", 2, (Span(7, 2),)))
    request = SequenceRequest(
        key("a"), (1, 9, 9, 9, 1, 9, 9, 9, 9, 1), items, SamplingParams(max_tokens=1)
    )
    assert scheduler.add(request).needed_items == (0, 1)
    scheduler.put_rows(key("a"), 0, 5)
    scheduler.put_rows(key("a"), 1, 2)
    first = schedule(scheduler)
    assert first.chunks[0].rows == (RowSlice(0, 0, 3, 1), RowSlice(0, 3, 4, 5))
    assert first.chunks[0].token_ids == (1, 9, 9, 9, 1, 9)
    assert scheduler.stats().rows_held == 7
    assert scheduler.take_events() == ()
    assert not scheduler.drop_rows(key("a"), 0)  # it is being read
    update(scheduler, first)
    assert scheduler.take_events() == (
        RowsReleased(key("a"), 0, 3),
        RowsReleased(key("a"), 0, 4),
    )
    second = schedule(scheduler)
    assert second.chunks[0].rows == (RowSlice(0, 4, 5, 0), RowSlice(1, 0, 2, 1))
    update(scheduler, second)
    assert scheduler.take_events() == (
        RowsReleased(key("a"), 0, 5),
        RowsReleased(key("a"), 1, 2),
        Finished(key("a"), 1, 0, 0, aborted=False),
    )


def test_dropped_rows_are_asked_for_and_used_ones_released_at_once() -> None:
    scheduler = make_scheduler(budget=4)
    scheduler.add(picture("a", 2, 6, 1))
    scheduler.put_rows(key("a"), 0, 4)
    assert step(scheduler) == [("a", 0, 4)]
    scheduler.take_events()
    assert scheduler.eviction_order() == ((key("a"), 0),)
    assert scheduler.drop_rows(key("a"), 0)
    assert scheduler.take_events() == (ItemsNeeded(key("a"), (0,)),)
    assert scheduler.stats().rows_held == 0
    assert not scheduler.drop_rows(key("a"), 0)  # nothing is there
    assert scheduler.schedule() is None
    assert scheduler.put_rows(key("a"), 0, 3)
    assert scheduler.take_events() == (RowsReleased(key("a"), 0, 2),)
    assert step(scheduler) == [("a", 4, 5)]


def test_rows_that_nobody_needs_are_refused() -> None:
    scheduler = make_scheduler()
    scheduler.add(picture("a", 1, 2, 1, max_tokens=5))
    assert not scheduler.put_rows(key("b"), 0, 1)
    assert scheduler.put_rows(key("a"), 0, 2)
    assert scheduler.put_rows(key("a"), 0, 1)  # told twice
    step(scheduler)
    assert not scheduler.put_rows(key("a"), 0, 2)  # used
    with pytest.raises(InvalidArgument, match="no item 1"):
        scheduler.put_rows(key("a"), 1, 1)
    with pytest.raises(InvalidArgument, match="1 to 2"):
        scheduler.put_rows(key("a"), 0, 3)
    scheduler.abort(key("a"))
    assert not scheduler.put_rows(key("a"), 0, 2)


def test_what_is_needed_last_is_evicted_first() -> None:
    scheduler = make_scheduler()
    for name in ("a", "b"):
        items = (Item(0, b"x", 2, (Span(1, 2),)), Item(1, b"y", 2, (Span(4, 2),)))
        scheduler.add(SequenceRequest(key(name), (1, 9, 9, 1, 9, 9, 1), items))
        scheduler.put_rows(key(name), 1, 2)
    scheduler.put_rows(key("a"), 0, 1)
    a, b = key("a"), key("b")
    assert scheduler.eviction_order() == ((b, 1), (a, 1), (a, 0))
    assert scheduler.priority(a, 1) == (0, 4)
    assert scheduler.priority(b, 0) == (1, 1)
    assert scheduler.priority(key("c"), 0) is None


# -- prefix cache ----------------------------------------------------------------------------


def test_a_prefix_hit_skips_prefill_and_encoding() -> None:
    scheduler = make_scheduler()
    scheduler.add(picture("a", 2, 6, 3, content=b"cat"))
    scheduler.put_rows(key("a"), 0, 6)
    drain(scheduler)
    admission = scheduler.add(picture("b", 2, 6, 3, content=b"cat"))
    assert (admission.num_cached_tokens, admission.needed_items) == (8, ())
    assert not scheduler.put_rows(key("b"), 0, 6)
    assert step(scheduler) == [("b", 8, 11)]
    admission = scheduler.add(picture("c", 2, 6, 3, content=b"dog"))
    assert (admission.num_cached_tokens, admission.needed_items) == (0, (0,))
    stats = scheduler.stats()
    assert (stats.prefix_hit_tokens_total, stats.prefix_query_tokens_total) == (8, 22)


def test_at_least_one_token_is_always_computed() -> None:
    scheduler = make_scheduler()
    scheduler.add(text("a", 8))
    drain(scheduler)
    assert scheduler.add(text("b", 8)).num_cached_tokens == 4
    assert step(scheduler) == [("b", 4, 8)]


def test_an_atomic_span_is_hit_as_a_whole_or_not_at_all() -> None:
    scheduler = make_scheduler(atomic_items=True)
    scheduler.add(picture("a", 5, 6, 8, content=b"cat"))
    scheduler.put_rows(key("a"), 0, 6)
    drain(scheduler)
    # Two blocks match, and the second ends inside the span, which starts in it too.
    shorter = picture("b", 5, 6, 0, content=b"cat")
    assert scheduler.add(shorter).num_cached_tokens == 4
    assert scheduler.add(picture("c", 5, 6, 8, content=b"cat")).num_cached_tokens == 16


def test_an_item_is_asked_for_as_soon_as_its_cached_blocks_are_lost() -> None:
    scheduler = make_scheduler(num_blocks=6, reserve_prompts=True)
    scheduler.add(picture("a", 2, 6, 1, content=b"cat"))
    scheduler.put_rows(key("a"), 0, 6)
    drain(scheduler)
    scheduler.add(text("hog", (5,) * 15, max_tokens=9))
    assert step(scheduler) == [("hog", 0, 15)]
    # It counts on two cached blocks, and waits behind one that waits for blocks.
    scheduler.add(picture("front", 16, 4, 1, max_tokens=3))
    admission = scheduler.add(picture("b", 2, 6, 4, max_tokens=12, content=b"cat"))
    assert (admission.num_cached_tokens, admission.needed_items) == (8, ())
    assert step(scheduler) == [("hog", 15, 16)]
    scheduler.take_events()
    assert step(scheduler) == [("hog", 16, 17)]  # which takes a cached block
    assert ItemsNeeded(key("b"), (0,)) in scheduler.take_events()
    assert scheduler.put_rows(key("b"), 0, 6)


def test_the_tail_of_a_cached_prefix_is_evicted_before_its_head() -> None:
    scheduler = make_scheduler(num_blocks=6)
    scheduler.add(text("a", 21))
    drain(scheduler)
    scheduler.add(text("b", (5,) * 8))
    drain(scheduler)
    assert scheduler.stats().blocks_cached == 6
    assert scheduler.add(text("c", 21)).num_cached_tokens == 16


def test_nobody_overtakes_who_waits_for_blocks() -> None:
    scheduler = make_scheduler(num_blocks=8, prefix_cache=False, reserve_prompts=True)
    scheduler.add(text("a", 16, max_tokens=9))
    assert step(scheduler) == [("a", 0, 16)]
    scheduler.add(text("b", 20))
    scheduler.add(text("c", 4))
    for position in range(16, 24):
        assert step(scheduler) == [("a", position, position + 1)]
    assert step(scheduler) == [("b", 0, 20), ("c", 0, 4)]


# -- preemption ------------------------------------------------------------------------------


def test_latest_is_preempted_and_asks_again_for_what_was_released() -> None:
    scheduler = make_scheduler(num_blocks=5, prefix_cache=False)
    scheduler.add(text("a", 8, max_tokens=9))
    scheduler.add(picture("b", 2, 8, 4, max_tokens=2))
    scheduler.put_rows(key("b"), 0, 5)
    assert step(scheduler) == [("a", 0, 8), ("b", 0, 7)]
    scheduler.put_rows(key("b"), 0, 6)
    assert step(scheduler) == [("a", 8, 9), ("b", 7, 8)]
    scheduler.put_rows(key("b"), 0, 7)
    for _ in range(3):
        step(scheduler)
    assert scheduler.stats().rows_held == 1  # there is no block for it
    scheduler.take_events()
    assert step(scheduler) == [("a", 12, 13)]
    # A delivery always begins at row 0, so the row still held goes too.
    assert scheduler.take_events() == (Preempted(key("b")), ItemsNeeded(key("b"), (0,)))
    assert scheduler.stats().rows_held == 0
    drain(scheduler)  # the text of b may run, but not together with a
    assert scheduler.sequence(key("a")) is None
    scheduler.put_rows(key("b"), 0, 8)
    drain(scheduler)
    assert scheduler.is_idle


def test_rows_that_no_chunk_has_used_survive_preemption() -> None:
    scheduler = make_scheduler(num_blocks=5, prefix_cache=False)
    scheduler.add(text("a", 8, max_tokens=9))
    items = (Item(0, b"x", 3, (Span(1, 3),)), Item(1, b"y", 4, (Span(8, 4),)))
    scheduler.add(SequenceRequest(key("b"), (1,) * 12, items, SamplingParams(max_tokens=1)))
    scheduler.put_rows(key("b"), 0, 3)
    assert step(scheduler) == [("a", 0, 8), ("b", 0, 8)]
    while scheduler.stats().num_preempted == 0:
        scheduler.put_rows(key("b"), 1, 3)
        step(scheduler)
    assert ItemsNeeded(key("b"), (0,)) in scheduler.take_events()
    assert scheduler.stats().rows_held == 3
    assert scheduler.put_rows(key("b"), 0, 3)
    assert scheduler.put_rows(key("b"), 1, 4)
    drain(scheduler)
    assert scheduler.is_idle


def test_a_younger_decode_makes_place_for_an_older_prefill() -> None:
    """It would be in every batch, and so never idle, if the claim did not hold it back."""
    for stages in (1, 2, 3):
        scheduler = make_scheduler(num_blocks=10, prefix_cache=False, max_in_flight=stages)
        scheduler.add(picture("old", 4, 8, 24))
        scheduler.add(text("young", 20, max_tokens=21))
        update(scheduler, schedule(scheduler))
        scheduler.put_rows(key("old"), 0, 8)
        in_flight = []
        num_steps = 0
        while scheduler.sequence(key("old")) is not None:
            num_steps += 1
            assert num_steps < 6 + stages
            batch = scheduler.schedule()
            if batch is not None:
                in_flight.append(batch)
            if len(in_flight) == stages or batch is None:
                update(scheduler, in_flight.pop(0))
        assert scheduler.stats().preemptions_total == 1


def test_outputs_survive_preemption() -> None:
    scheduler = make_scheduler(num_blocks=5, prefix_cache=False)
    scheduler.add(text("a", 6, max_tokens=12))
    scheduler.add(text("b", 6, max_tokens=12))
    while scheduler.stats().num_preempted == 0:
        step(scheduler)
    assert Preempted(key("b")) in scheduler.take_events()
    sequence = scheduler.sequence(key("b"))
    assert sequence is not None
    num_tokens = sequence.num_tokens
    assert num_tokens > 6
    assert scheduler.stats().recomputed_tokens_total == num_tokens - 1
    while scheduler.sequence(key("a")) is not None:
        shapes = step(scheduler)
    shapes = step(scheduler)
    assert shapes == [("b", 0, num_tokens)]  # prompt and outputs, as one prefill
    assert Resumed(key("b"), 0) in scheduler.take_events()


def test_admission_leaves_room_for_what_runs() -> None:
    careless = make_scheduler(num_blocks=8)
    careful = make_scheduler(num_blocks=8, reserve_ratio=1.0, reserve_prompts=True)
    for scheduler in (careless, careful):
        scheduler.add(text("a", 8, max_tokens=17))
        scheduler.add(text("b", (2,) * 12, max_tokens=9))
    assert step(careless) == [("a", 0, 8), ("b", 0, 12)]
    assert step(careful) == [("a", 0, 8)]
    for scheduler in (careless, careful):
        drain(scheduler)
    assert careless.stats().preemptions_total == 1
    assert careful.stats().preemptions_total == 0


def test_batches_that_lack_blocks_are_counted() -> None:
    scheduler = make_scheduler(num_blocks=8, reserve_ratio=1.0, reserve_prompts=True)
    scheduler.add(text("a", 8, max_tokens=17))
    step(scheduler)
    step(scheduler)
    assert scheduler.stats().starved_batches_total == 0  # nobody waits
    scheduler.add(text("b", (2,) * 12, max_tokens=9))
    num_steps = 0
    while scheduler.sequence(key("a")) is not None:
        if all(name == "a" for name, *_ in step(scheduler)):
            num_steps += 1
    assert num_steps > 3
    assert scheduler.stats().starved_batches_total == num_steps
    drain(scheduler)
    assert scheduler.stats().starved_batches_total == num_steps


def test_who_waits_for_a_place_among_few_sequences_lacks_no_blocks() -> None:
    scheduler = make_scheduler(num_blocks=50, prefix_cache=False, max_sequences=1)
    scheduler.add(text("a", 8, max_tokens=5))
    scheduler.add(text("b", (2,) * 8, max_tokens=5))
    drain(scheduler)
    assert scheduler.is_idle
    assert scheduler.stats().starved_batches_total == 0


def test_a_batch_that_cannot_grow_a_sequence_lacks_blocks() -> None:
    """First the younger one sits a step out, then it loses its blocks to the older one."""
    scheduler = make_scheduler(num_blocks=5, prefix_cache=False)
    scheduler.add(text("a", 6, max_tokens=12))
    scheduler.add(text("b", 6, max_tokens=12))
    step(scheduler)
    assert scheduler.stats().starved_batches_total == 0
    while scheduler.stats().starved_batches_total == 0:
        step(scheduler)
    assert scheduler.stats().preemptions_total == 0
    num_starved = 1
    while scheduler.stats().preemptions_total == 0:
        step(scheduler)
        num_starved += 1
    assert scheduler.stats().starved_batches_total == num_starved


# -- ends ------------------------------------------------------------------------------------


def test_aborted_in_flight_keeps_its_blocks_until_the_update() -> None:
    scheduler = make_scheduler(max_in_flight=2, budget=4)
    scheduler.add(text("a", 8, max_tokens=3))
    first, second = schedule(scheduler), schedule(scheduler)
    scheduler.abort(key("a"))
    scheduler.abort(key("a"))
    scheduler.abort(key("unknown"))
    assert scheduler.take_events() == ()
    assert scheduler.stats().blocks_free == 98
    scheduler.update(first.batch_id, {})
    assert not scheduler.is_idle
    scheduler.update(second.batch_id, {})  # the outcome of what has ended may be missing
    assert scheduler.take_events() == (Finished(key("a"), 0, 0, 0, aborted=True),)
    assert scheduler.is_idle
    stats = scheduler.stats()
    assert (stats.blocks_free, stats.blocks_cached) == (100, 0)  # what failed is not shared


def test_the_last_output_ends_a_sequence_whatever_the_outcome_says() -> None:
    scheduler = make_scheduler()
    scheduler.add(text("a", 3, max_tokens=2))
    step(scheduler)
    step(scheduler)
    assert scheduler.take_events() == (Finished(key("a"), 2, 0, 0, aborted=False),)


def test_a_stop_token_or_finish_ends_a_sequence_early() -> None:
    scheduler = make_scheduler()
    scheduler.add(text("a", 3, max_tokens=9))
    scheduler.add(text("b", 3, max_tokens=9))
    update(scheduler, schedule(scheduler), finished="a")
    scheduler.finish(key("b"))
    assert scheduler.take_events() == (
        Finished(key("a"), 1, 0, 0, aborted=False),
        Finished(key("b"), 1, 0, 0, aborted=False),
    )
    assert scheduler.is_idle


def test_resumed_outputs_are_computed_like_prompt_and_count_as_outputs() -> None:
    scheduler = make_scheduler()
    request = SequenceRequest(
        key("a"), (1, 2, 3), (), SamplingParams(max_tokens=3), resume_token_ids=(7, 8)
    )
    scheduler.add(request)
    batch = schedule(scheduler)
    assert batch.chunks[0].token_ids == (1, 2, 3, 7, 8)
    assert batch.chunks[0].samples
    update(scheduler, batch)
    assert scheduler.take_events() == (Finished(key("a"), 3, 0, 0, aborted=False),)


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (text("a", ()), InvalidArgument, "empty"),
        (text("a", 3, max_tokens=0), InvalidArgument, "nothing is left"),
        (
            SequenceRequest(key("a"), (1,), (), SamplingParams(max_tokens=2), (5, 6)),
            InvalidArgument,
            "nothing is left",
        ),
        (picture("known", 1, 1, 1), InvalidArgument, "in use"),
        (text("a", 30, max_tokens=12), ContextTooLong, "KV cache of 40"),
        (text("a", 36, max_tokens=1), ContextTooLong, "context length of 36"),
        (
            SequenceRequest(key("a"), (1, 2), (Item(0, b"", 3, (Span(0, 3),)),)),
            InvalidArgument,
            "ends at 3",
        ),
        (
            SequenceRequest(key("a"), (1, 2), (Item(1, b"", 1, (Span(0, 1),)),)),
            InvalidArgument,
            "index 1",
        ),
        (
            SequenceRequest(
                key("a"),
                (1, 2, 3),
                (Item(0, b"", 2, (Span(0, 2),)), Item(1, b"", 2, (Span(1, 2),))),
            ),
            InvalidArgument,
            "overlaps",
        ),
        (
            SequenceRequest(key("a"), (1, 2), (Item(0, b"", 2, (Span(1, 1), Span(0, 1))),)),
            InvalidArgument,
            "prompt order",
        ),
        (
            SequenceRequest(key("a"), (1, 2), (Item(0, b"", 0, ()),)),
            InvalidArgument,
            "1 row or more",
        ),
    ],
)
def test_a_request_that_can_never_run_is_refused(
    request_: SequenceRequest, error: type[Exception], message: str
) -> None:
    limit = 36 if "36" in message else None
    scheduler = make_scheduler(num_blocks=10, max_model_length=limit)
    scheduler.add(text("known", 1))
    with pytest.raises(error, match=message):
        scheduler.add(request_)
    drain(scheduler)
    assert scheduler.is_idle


def test_the_longest_request_that_fits_is_taken() -> None:
    scheduler = make_scheduler(num_blocks=10, max_model_length=41)
    scheduler.add(text("a", 30, max_tokens=11))  # the 41st token is never computed
    drain(scheduler)
    assert scheduler.take_events() == (Finished(key("a"), 11, 0, 0, aborted=False),)


def test_updates_come_in_order_and_fit_the_batch() -> None:
    scheduler = make_scheduler(max_in_flight=2, budget=4)
    scheduler.add(text("a", 8, max_tokens=3))
    first, second = schedule(scheduler), schedule(scheduler)
    with pytest.raises(InternalError, match="oldest is 0"):
        update(scheduler, second)
    with pytest.raises(InternalError, match="which batch 0 lacks"):
        scheduler.update(first.batch_id, {key("a"): Outcome(1)})
    update(scheduler, first)
    with pytest.raises(InternalError, match="no outcome"):
        scheduler.update(second.batch_id, {})
    update(scheduler, second)
    with pytest.raises(InternalError, match="oldest is None"):
        update(scheduler, second)


@pytest.mark.parametrize(
    "switches",
    [
        {"num_blocks": 0},
        {"block_size": 0},
        {"max_in_flight": 0},
        {"min_chunk": 0},
        {"max_held_back": -1},
        {"reserve_ratio": 1.5},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(switches: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as caught:
        SchedulerConfig(**{"num_blocks": 4, "block_size": 4, **switches})  # type: ignore[arg-type]
    assert caught.value.field in switches


def test_stats_count_what_could_run() -> None:
    scheduler = make_scheduler(budget=4)
    scheduler.add(picture("a", 6, 4, 2))
    scheduler.add(text("b", 5))
    stats = scheduler.stats()
    assert (stats.num_waiting, stats.schedulable_tokens, stats.waiting_tokens) == (2, 11, 17)
    assert stats.oldest_waiting_arrival == 0
    batch = schedule(scheduler)
    stats = scheduler.stats()
    assert (stats.num_waiting, stats.num_running, stats.num_in_flight) == (1, 1, 1)
    assert (stats.schedulable_tokens, stats.ready_tokens, stats.waiting_tokens) == (7, 11, 5)
    assert (stats.blocks_free, stats.blocks_total) == (99, 100)
    update(scheduler, batch)
    assert scheduler.stats().oldest_waiting_arrival == 1
