"""Which items an encoder encodes next, and which of them are the same content.

Oldest request first and prompt order inside a request, so that ready prefixes grow from the left;
batches across requests; work-conserving: it never waits for a batch to fill.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redserve.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass(frozen=True, slots=True)
class EncodeTask:
    """One item that somebody wants encoded.

    Attributes:
        tag: Who wants it; unique among the tasks of a batcher.
        request_arrival: Lower is older.
        item_index: Place among the items of its request.
        content_key: Equal keys give equal embeddings.
        num_rows: Embedding rows that come out.
        cost: Work of encoding it, in any unit (patches); for reports of load.
    """

    tag: Hashable
    request_arrival: int
    item_index: int
    content_key: bytes
    num_rows: int
    cost: int


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """One content to encode now, for all who want it.

    Attributes:
        task: The most urgent of the tasks with this content.
        tags: All tags that want it; more may join until `complete`.
    """

    task: EncodeTask
    tags: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """C, the rows of an encoder batch, follows demand (*ours*).

    A large batch encodes more rows per second, a small one lets the overlap begin sooner. While
    the LLM replica that waits for rows is idle, sooner wins; while it has a backlog, more does.

    Attributes:
        small: Rows while the LLM replica is idle.
        large: Rows while it is busy.
    """

    small: int
    large: int

    def limit(self, llm_idle: bool) -> int:
        """Rows of the next batch."""
        return self.small if llm_idle else self.large


@dataclass(slots=True)
class _Content:
    """All tasks that want one content, most urgent first; nobody may be left while in flight."""

    num_rows: int
    tasks: list[EncodeTask] = field(default_factory=list)
    in_flight: bool = False


def _urgency(task: EncodeTask) -> tuple[int, int]:
    return task.request_arrival, task.item_index


class EncoderBatcher:
    """The queue of one encoder.

    Args:
        batch_rows: C, rows of a batch if `next_batch` is not told otherwise.
    """

    def __init__(self, batch_rows: int) -> None:
        self._batch_rows = batch_rows
        self._contents: dict[bytes, _Content] = {}
        self._key_of: dict[Hashable, bytes] = {}
        # (arrival, item index, content) of contents not in flight, most urgent first.
        self._queue: list[tuple[int, int, bytes]] = []
        self.queued_rows = 0
        self.in_flight_rows = 0
        self.queued_cost = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, task: EncodeTask) -> bool:
        """Queue a task; equal content is joined, also with what is being encoded now.

        Returns:
            Whether it has to be encoded for this task: False if it joined another.

        Raises:
            InvalidArgument: The tag is in use, or the content is known with other rows.
        """
        if task.tag in self._key_of:
            raise InvalidArgument(f"{task.tag!r} is queued already", field="tag")
        content = self._contents.get(task.content_key)
        if content is not None and content.num_rows != task.num_rows:
            raise InvalidArgument(
                f"the same content has {content.num_rows} rows, not {task.num_rows}; "
                "the content key must cover everything that changes the rows",
                field="num_rows",
            )
        is_new = content is None
        if content is None:
            content = self._contents[task.content_key] = _Content(task.num_rows)
        elif not content.in_flight:
            self._dequeue(content)
        self._key_of[task.tag] = task.content_key
        insort(content.tasks, task, key=_urgency)
        if not content.in_flight:
            self._enqueue(content)
        return is_new

    def cancel(self, tag: Hashable) -> bool:
        """Forget a task. Content that nobody wants any more leaves the queue.

        Returns:
            Whether the tag was known.
        """
        key = self._key_of.pop(tag, None)
        if key is None:
            return False
        content = self._contents[key]
        if not content.in_flight:
            self._dequeue(content)
        content.tasks = [task for task in content.tasks if task.tag != tag]
        if content.in_flight:
            return True  # it is encoded anyway, and who asks meanwhile may join
        if content.tasks:
            self._enqueue(content)
        else:
            del self._contents[key]
        return True

    def next_batch(self, limit_rows: int | None = None) -> tuple[EncodeJob, ...]:
        """Take the most urgent contents, up to `limit_rows` rows and at least one.

        Stops at the first that does not fit: nobody is overtaken. Empty only if nothing is queued.

        Args:
            limit_rows: C for this batch; None takes the one of the constructor.
        """
        limit = self._batch_rows if limit_rows is None else limit_rows
        jobs: list[EncodeJob] = []
        while self._queue:
            content = self._contents[self._queue[0][2]]
            task = content.tasks[0]
            if jobs and task.num_rows > limit:
                break
            self._dequeue(content)
            content.in_flight = True
            self.in_flight_rows += task.num_rows
            limit -= task.num_rows
            jobs.append(EncodeJob(task, tuple(t.tag for t in content.tasks)))
        return tuple(jobs)

    def complete(self, content_key: bytes) -> tuple[Hashable, ...]:
        """A content of a batch is encoded, or has failed.

        Returns:
            Everybody who wants it now: those who joined meanwhile are in, those who cancelled are
            not. Nobody if the content is not in flight.
        """
        content = self._contents.get(content_key)
        if content is None or not content.in_flight:
            return ()
        del self._contents[content_key]
        self.in_flight_rows -= content.num_rows
        for task in content.tasks:
            del self._key_of[task.tag]
        return tuple(task.tag for task in content.tasks)

    def _enqueue(self, content: _Content) -> None:
        first = content.tasks[0]
        insort(self._queue, (*_urgency(first), first.content_key))
        self.queued_rows += first.num_rows
        self.queued_cost += first.cost

    def _dequeue(self, content: _Content) -> None:
        first = content.tasks[0]
        self._queue.remove((*_urgency(first), first.content_key))
        self.queued_rows -= first.num_rows
        self.queued_cost -= first.cost
