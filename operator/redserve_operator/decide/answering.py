"""Whether requests are answered, by whichever revision: old and new serve side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from redserve.spec.placement import Role
    from redserve_operator.decide.census import Census


def has_path(census: Census, revision: str, pools: Iterable[Role]) -> bool:
    """Whether a revision has a ready replica in each of these pools: only so does it serve."""
    return all(census.tally(pool, revision).ready for pool in pools)


def who_answers(
    census: Census, floors: Mapping[Role, int], update: str, *, is_first: bool
) -> str | None:
    """A revision that serves while the service as a whole has what was promised.

    Args:
        census: What there is.
        floors: Replicas of all revisions that must be ready, for each pool that is needed.
        update: The newest revision.
        is_first: Whether no revision was ever whole. Then the newest one has to be, to answer.

    Returns:
        An older one if one serves: it bears the traffic while the newest starts. None: nobody,
        or not enough.
    """
    for pool, least in floors.items():
        tallies = census.tallies.get(pool, {}).values()
        if sum(tally.ready for tally in tallies) < max(1, least):
            return None
    able = sorted(one for one in census.revisions() if has_path(census, one, floors))
    older = [one for one in able if one != update]
    if older:
        return older[0]
    return update if update in able and not is_first else None
