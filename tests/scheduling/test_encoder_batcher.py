"""The queue of an encoder: order, size, and one encode for equal content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import InvalidArgument
from redserve.scheduling import BatchLimit, EncoderBatcher, EncodeTask
from tests.strategies import effort


def task(tag: str, arrival: int, index: int, rows: int, content: str = "") -> EncodeTask:
    return EncodeTask(tag, arrival, index, (content or tag).encode(), rows, 2 * rows)


def tags(batcher: EncoderBatcher, limit: int | None = None) -> list[tuple[object, ...]]:
    return [job.tags for job in batcher.next_batch(limit)]


def test_oldest_request_first_and_prompt_order_inside() -> None:
    batcher = EncoderBatcher(100)
    for args in [("b1", 2, 1, 5), ("b0", 2, 0, 5), ("a1", 1, 1, 5), ("a0", 1, 0, 5)]:
        batcher.add(task(*args))
    assert (len(batcher), batcher.queued_rows, batcher.queued_cost) == (4, 20, 40)
    assert tags(batcher) == [("a0",), ("a1",), ("b0",), ("b1",)]
    assert (len(batcher), batcher.queued_rows, batcher.in_flight_rows) == (0, 0, 20)
    assert tags(batcher) == []


def test_batches_hold_c_rows_across_requests_and_at_least_one_item() -> None:
    batcher = EncoderBatcher(10)
    for n, rows in enumerate([30, 4, 6, 1, 9]):
        batcher.add(task(f"t{n}", n, 0, rows))
    assert tags(batcher) == [("t0",)]
    assert tags(batcher) == [("t1",), ("t2",)]
    assert tags(batcher, 9) == [("t3",)]  # t4 does not fit beside it, and nobody overtakes
    assert tags(batcher) == [("t4",)]


def test_equal_content_is_encoded_once_also_with_work_in_flight() -> None:
    batcher = EncoderBatcher(10)
    assert batcher.add(task("a", 5, 0, 4, "cat"))
    assert not batcher.add(task("b", 1, 0, 4, "cat"))
    batcher.add(task("c", 3, 0, 4, "dog"))
    # The younger request's task is pulled forward by the older one's.
    assert tags(batcher) == [("b", "a"), ("c",)]
    assert not batcher.add(task("d", 9, 0, 4, "cat"))
    assert tags(batcher) == []
    assert batcher.cancel("a")
    assert batcher.complete(b"cat") == ("b", "d")
    assert batcher.complete(b"cat") == ()
    assert batcher.in_flight_rows == 4
    assert batcher.add(task("e", 9, 0, 4, "cat"))  # a new encode


def test_what_nobody_wants_is_not_encoded() -> None:
    batcher = EncoderBatcher(10)
    batcher.add(task("a", 1, 0, 4, "cat"))
    batcher.add(task("b", 2, 0, 4, "cat"))
    batcher.add(task("c", 3, 0, 4, "dog"))
    assert batcher.cancel("a")
    assert batcher.cancel("c")
    assert not batcher.cancel("c")
    assert (batcher.queued_rows, batcher.queued_cost) == (4, 8)
    assert tags(batcher) == [("b",)]
    assert batcher.cancel("b")  # too late, but others may still join
    assert not batcher.add(task("d", 4, 0, 4, "cat"))
    assert batcher.complete(b"cat") == ("d",)


def test_contradictions_are_refused() -> None:
    batcher = EncoderBatcher(10)
    batcher.add(task("a", 1, 0, 4, "cat"))
    with pytest.raises(InvalidArgument, match="queued already"):
        batcher.add(task("a", 1, 1, 4, "dog"))
    with pytest.raises(InvalidArgument, match="4 rows, not 5"):
        batcher.add(task("b", 1, 1, 5, "cat"))
    assert tags(batcher) == [("a",)]


def test_c_follows_demand() -> None:
    limit = BatchLimit(small=256, large=4096)
    assert limit.limit(llm_idle=True) == 256
    assert limit.limit(llm_idle=False) == 4096


@effort(300)
@given(data=st.data(), batch_rows=st.integers(1, 20))
def test_every_task_ends_once(data: st.DataObject, batch_rows: int) -> None:
    rows_of = {"x": 1, "y": 7, "z": 30}
    batcher = EncoderBatcher(batch_rows)
    waiting: dict[str, EncodeTask] = {}
    in_flight: list[EncodeTask] = []
    done: list[object] = []
    num_tasks = 0
    for _ in range(data.draw(st.integers(0, 30))):
        action = data.draw(st.sampled_from(["add", "add", "batch", "complete", "cancel"]))
        if action == "add":
            content = data.draw(st.sampled_from("xyz"))
            arrival = data.draw(st.integers(0, 5))
            new = task(f"t{num_tasks}", arrival, num_tasks, rows_of[content], content)
            num_tasks += 1
            known = {t.content_key for t in [*waiting.values(), *in_flight]}
            joined = not batcher.add(new)
            assert joined == (new.content_key in known)
            waiting[str(new.tag)] = new
        elif action == "batch":
            busy = {t.content_key for t in in_flight}
            open_ = [t for t in waiting.values() if t.content_key not in busy]
            batch = batcher.next_batch()
            assert bool(batch) == bool(open_)
            rows = sum(job.task.num_rows for job in batch)
            assert rows <= batch_rows or len(batch) == 1
            if batch:
                assert batch[0].task == min(open_, key=lambda t: (t.request_arrival, t.item_index))
            for job in batch:
                wanted = {t.tag for t in open_ if t.content_key == job.task.content_key}
                assert set(job.tags) == wanted
                in_flight.append(job.task)
        elif action == "complete" and in_flight:
            finished = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
            ended = batcher.complete(finished.content_key)
            done += ended
            for tag in ended:
                assert waiting.pop(str(tag)).content_key == finished.content_key
        elif action == "cancel" and waiting:
            tag = data.draw(st.sampled_from(sorted(waiting)))
            assert batcher.cancel(tag)
            del waiting[tag]
        assert batcher.in_flight_rows == sum(t.num_rows for t in in_flight)
        busy = {t.content_key for t in in_flight}
        queued = {t.content_key: t.num_rows for t in waiting.values() if t.content_key not in busy}
        assert batcher.queued_rows == sum(queued.values())
    assert len(done) == len(set(done))
