"""Asking LLM replicas whether they still want what is held for them.

A hold ends when its LLM replica says that it has the bytes. That word can get lost, because this
process was stopped meanwhile or the replica ended; and some embeddings are never fetched, because
their request needs them no more. So a replica that has not fetched in a moment is asked, less and
less often:

    it says no         nobody will ever fetch it under this key: the hold ends
    it says yes        it waits for room over there: the hold goes on
    it does not answer it is asked again; after `MAX_UNANSWERED` times in a row, every hold for it
                       ends, as its requests have found another replica or their end by then

While the encoder drains, all are asked once a second: it waits for every embedding that somebody
says to want, and no longer. Nothing is lost that is wanted after all: its embedding stays in the
cache as long as there is an encoder, and who asks for it gets TENSOR_GONE or PEER_LOST, upon which
the router has it sent again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from redserve.errors import DeadlineExceeded, RedServeError
from redserve.telemetry.log import get_logger

if TYPE_CHECKING:
    from redserve_encoder.holds import Hold, Holds
    from redserve_encoder.llm_clients import LlmClients

log = get_logger()

ROUND_S = 1.0
"""Between two looks at what is held."""
LONGEST_ROUND_S = 2.0
"""For questions to one replica at a time; the others are asked in the next round."""
FIRST_S = 2.0
"""How long a hold is nothing unusual. Pauses double from there."""
LONGEST_S = 32.0
"""Longest pause."""
MAX_UNANSWERED = 4
"""Questions in a row without an answer: a replica that is gone is given up within half a minute, by
an encoder that drains within 15 s (5 s where nobody listens any more)."""


class Turn:
    """When somebody is asked next. It knows no clock.

    Attributes:
        times: How often that was put off.
        next_s: When, seconds of whatever clock `now_s` is of.
    """

    __slots__ = ("next_s", "times")

    def __init__(self, now_s: float) -> None:
        self.times = 0
        self.next_s = now_s + FIRST_S

    def put_off(self, now_s: float) -> None:
        """Asked now: the next pause is twice as long as the last one, up to the longest."""
        self.times += 1
        self.next_s = now_s + min(FIRST_S * 2**self.times, LONGEST_S)


class StillWanted:
    """Asks. The event loop owns it.

    Args:
        holds: What is held.
        clients: Reach the LLM replicas.
    """

    def __init__(self, holds: Holds, clients: LlmClients) -> None:
        self._holds = holds
        self._clients = clients
        self._silent: dict[str, Turn] = {}  # replicas that did not answer the last question
        self._hurried = False

    def hurry(self) -> None:
        """From now on everybody is asked in every round: the encoder waits for the answers."""
        self._hurried = True

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                await self._round(time.monotonic())
            except Exception:  # without questions a drain may last until deadlines
                log.exception("asking for what is still wanted failed")

    async def _round(self, now_s: float) -> None:
        by_replica: dict[str, list[Hold]] = {}
        for hold in self._holds.settled():
            by_replica.setdefault(hold.delivery.destination, []).append(hold)
        for address in self._silent.keys() - by_replica:
            del self._silent[address]
        due = {
            address: [hold for hold in holds if self._is_due(hold.turn, now_s)]
            for address, holds in by_replica.items()
            if address not in self._silent or self._is_due(self._silent[address], now_s)
        }
        for holds in due.values():  # so that each has its turn, however many there are
            holds.sort(key=lambda hold: hold.turn.next_s)
        await asyncio.gather(*(self._ask(address, holds) for address, holds in due.items()))

    def _is_due(self, turn: Turn, now_s: float) -> bool:
        return self._hurried or turn.next_s <= now_s

    async def _ask(self, address: str, holds: list[Hold]) -> None:
        """Ask one replica for one hold after the other, until it does not answer."""
        ends_s = time.monotonic() + LONGEST_ROUND_S
        for hold in holds:
            delivery = hold.delivery
            if delivery not in self._holds:  # fetched meanwhile
                continue
            try:
                wanted = await self._clients.still_wants(
                    address, delivery.tag, hold.key, delivery.num_rows, delivery.deadline_s
                )
            except DeadlineExceeded:
                continue  # the request's own, which ends the hold
            except RedServeError as error:
                self._not_answered(address, error)
                return
            now_s = time.monotonic()
            self._silent.pop(address, None)
            if wanted:
                hold.turn.put_off(now_s)
            elif self._holds.end(delivery):
                log.info("an embedding is wanted no more", **hold.log_ids)
            if now_s >= ends_s:
                return

    def _not_answered(self, address: str, error: RedServeError) -> None:
        now_s = time.monotonic()
        turn = self._silent.get(address)
        if turn is None:
            turn = self._silent[address] = Turn(now_s)
        else:
            turn.put_off(now_s)
        if turn.times + 1 < MAX_UNANSWERED:
            return
        del self._silent[address]
        given_up = [hold for hold in self._holds.settled() if hold.delivery.destination == address]
        for hold in given_up:
            self._holds.end(hold.delivery)
        log.warning(
            "an LLM replica gives no answer, and what is held for it is given up",
            replica=address,
            num_items=len(given_up),
            why=str(error),
        )
