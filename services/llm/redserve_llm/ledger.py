"""Who is live, what of them lies in the arena, and what the outside is told. No thread, no lock.

The engine owns one ledger and guards it with its lock; every method expects the lock to be held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.domain import FinishReason
from redserve.errors import Cancelled, InvalidArgument
from redserve.scheduling import Admission, Finished, ItemsNeeded, RowsReleased
from redserve_llm.notices import Ended, Failed, Gone, RowsNeeded, RowsUsed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.domain import SequenceKey
    from redserve.errors import RedServeError
    from redserve.scheduling import Scheduler
    from redserve_llm.live_sequence import LiveSequence
    from redserve_llm.notices import Begun, Delta, Notice, Outlet, Worked
    from redserve_llm.runner.interface import ItemRows, ModelRunner


class Ledger:
    """Live sequences by key, and their rows.

    Args:
        scheduler: Decides; its events become notices here.
        runner: Told which sequences have gone.
        outlet: Gets the notices.
    """

    def __init__(self, scheduler: Scheduler, runner: ModelRunner, outlet: Outlet) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._outlet = outlet
        self._live: dict[SequenceKey, LiveSequence] = {}
        self._generations: dict[str, SequenceKey] = {}
        self._rows: dict[tuple[SequenceKey, int], ItemRows] = {}

    def live(self, key: SequenceKey) -> LiveSequence | None:
        """A sequence that has not ended; also without the lock, from the engine's thread."""
        return self._live.get(key)

    def rows(self, key: SequenceKey, item_index: int) -> ItemRows:
        """Rows of an item that a step in flight reads; also without the lock."""
        return self._rows[key, item_index]

    def key_of(self, request_id: str) -> SequenceKey | None:
        """The live generation of a request."""
        return self._generations.get(request_id)

    def check_generation(self, key: SequenceKey) -> None:
        """Refuse a generation that is not newer than the live one.

        Raises:
            InvalidArgument: It is as old or older.
        """
        older = self._generations.get(key.request_id)
        if older is not None and older.generation >= key.generation:
            raise InvalidArgument(
                f"generation {older.generation} of this request is running; "
                "a newer one must have a higher number",
                field="generation",
            )

    def enter(self, live: LiveSequence) -> Admission:
        """Queue a sequence; it takes the place of an older generation.

        Raises:
            InvalidArgument: The request contradicts itself.
            ContextTooLong: It could never fit.
        """
        key = live.request.key
        older = self._generations.get(key.request_id)
        if live.reason is not None:  # it was complete when it was resumed
            admission = Admission(0, ())
        else:
            admission = self._scheduler.add(live.request)
        if older is not None:
            self.end(older, Cancelled("a newer generation of this request has come"))
        if live.reason is not None:
            self._outlet.notify([Ended(key, live.reason, live.usage, ()), Gone(key)])
            self.report()
            return admission
        live.num_cached_tokens = admission.num_cached_tokens
        self._live[key] = live
        self._generations[key.request_id] = key
        self.report()
        return admission

    def put_rows(self, key: SequenceKey, item_index: int, rows: ItemRows) -> bool:
        """See `Engine.put_rows`."""
        if not self._scheduler.put_rows(key, item_index, rows.num_rows):
            return False
        self._rows[key, item_index] = rows
        self.report()
        return True

    def drop_rows(self, key: SequenceKey, item_index: int) -> bool:
        """See `Engine.drop_rows`."""
        if not self._scheduler.drop_rows(key, item_index):
            return False
        self._rows.pop((key, item_index), None)
        self.report()
        return True

    def tell(
        self, deltas: Sequence[Delta], worked: Sequence[Begun | Worked] = ()
    ) -> list[LiveSequence]:
        """Pass on what a step made and did, and the ends of those that it completed.

        Returns:
            The completed ones; the scheduler has ended them already.
        """
        kept = [delta for delta in deltas if delta.key in self._live]
        notices: list[Notice] = [one for one in worked if one.key in self._live]
        notices += kept
        completed = []
        for delta in kept:
            live = self._live[delta.key]
            if live.reason is not None:
                self._forget(delta.key)
                completed.append(live)
                notices.append(Ended(delta.key, live.reason, live.usage, live.timeline.bars()))
        if notices:
            self._outlet.notify(notices)
        return completed

    def end(self, key: SequenceKey, error: RedServeError | None) -> None:
        """End a live sequence early: by an error, or because nobody wants it. Others are fine."""
        live = self._live.get(key)
        if live is None:
            return
        self._forget(key)
        self._scheduler.abort(key)
        notice: Notice
        if error is None:
            notice = Ended(key, FinishReason.CANCELLED, live.usage, live.timeline.bars())
        else:
            notice = Failed(key, error, live.timeline.bars())
        self._outlet.notify([notice])

    def end_all(self, error: RedServeError) -> None:
        """End every live sequence by an error."""
        for key in list(self._live):
            self.end(key, error)
        self.report()

    def abandon(self, error: RedServeError) -> None:
        """Like `end_all`, when the scheduler cannot be trusted any more."""
        for key, live in list(self._live.items()):
            self._forget(key)
            self._outlet.notify([Failed(key, error, live.timeline.bars()), Gone(key)])

    def report(self) -> None:
        """Pass on what the scheduler has to say."""
        notices: list[Notice] = []
        for event in self._scheduler.take_events():
            if isinstance(event, RowsReleased):
                notices.append(RowsUsed(event.key, event.item_index, event.row_end))
            elif isinstance(event, ItemsNeeded):
                notices.append(RowsNeeded(event.key, event.item_indices))
            elif isinstance(event, Finished):
                self._runner.remove(event.key)
                for place in [place for place in self._rows if place[0] == event.key]:
                    del self._rows[place]
                notices.append(Gone(event.key))
        if notices:
            self._outlet.notify(notices)

    def _forget(self, key: SequenceKey) -> None:
        del self._live[key]
        if self._generations.get(key.request_id) == key:
            del self._generations[key.request_id]
