"""Results that are remembered, as many as there is room for."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Result = TypeVar("Result")


class Memory:
    """The result for each key; when it is full any one makes room.

    Services are looked at in turn: to forget what was used longest ago would be to forget always
    what is asked for next, so that one service more than fit would cost all of them everything.

    Args:
        room: Most results.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._known: dict[Hashable, object] = {}
        self._keys: list[Hashable] = []
        self._dice = random.Random(0)

    def recall(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """The result for a key, made if it is not known; what `make` raises is not remembered.

        All calls with a key are for results of one type.
        """
        if key in self._known:
            return self._known[key]  # type: ignore[return-value]
        result = make()
        if len(self._keys) < self._room:
            self._keys.append(key)
        else:
            place = self._dice.randrange(self._room)
            del self._known[self._keys[place]]
            self._keys[place] = key
        self._known[key] = result
        return result

    def __len__(self) -> int:
        return len(self._known)
