"""Who belongs to a pool, as discovery tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """One replica of a pool.

    Attributes:
        address: host:port; IPv6 hosts in brackets.
        takes_work: Whether new work should go there. Running work goes on either way.
    """

    address: str
    takes_work: bool = True


def merge_members(members: Iterable[Member]) -> tuple[Member, ...]:
    """One member per address, in the order in which addresses first come.

    An address may be told of several times while it moves from one list to another, and one of
    them is then out of date. The willing one counts: a replica that is asked in vain says so at
    once, and one that nobody asks is lost room.
    """
    merged: dict[str, bool] = {}
    for member in members:
        merged[member.address] = merged.get(member.address, False) or member.takes_work
    return tuple(Member(address, takes_work) for address, takes_work in merged.items())


def preferred(serving: Iterable[T], takes_work: Callable[[T], bool]) -> tuple[T, ...]:
    """Of those that serve by their own word, those to which new work should go.

    If discovery advises against every one of them, all of them: a replica on its way out that
    still takes work is better than a refusal, and a probe that fails everywhere at once says more
    about the probe.
    """
    everyone = tuple(serving)
    return tuple(one for one in everyone if takes_work(one)) or everyone
