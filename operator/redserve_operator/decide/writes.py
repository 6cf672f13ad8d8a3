"""All writes and deletions of one decision, in order.

What pods need comes before them; old revisions and counts after; deletions last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.cluster.facts import OPTIONAL_KINDS
from redserve.cluster.names import POOLS, pool_name
from redserve.cluster.scope import pool_spec
from redserve.spec.pool_resource import POOL_KIND
from redserve_operator.decide.objects import controller_of, key_of, uid_of
from redserve_operator.decide.observed import ObjectKey
from redserve_operator.decide.old_accounts import with_old_routers
from redserve_operator.decide.sizes import keep_red_pool, red_pool_status, selector_of
from redserve_operator.decide.upkeep import keep, leftovers, resize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from redserve.cluster.facts import Manifest, Rendered
    from redserve.spec.placement import Role
    from redserve.spec.service import RedService
    from redserve_operator.decide.census import Census
    from redserve_operator.decide.observed import Observed
    from redserve_operator.decide.plan import Action
    from redserve_operator.decide.rollout import Targets
    from redserve_operator.decide.sizes import Size


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided before it comes to writing.

    Attributes:
        service: The manifest.
        rendered: Its objects.
        may_start: Whether pods of the rendered revision may be there.
        leading: Revision that is not to be cleared away: the rendered one, or the one that serves
            until that may start.
        sizes: Of the pools.
        targets: Of the workloads.
    """

    service: RedService
    rendered: Rendered
    may_start: bool
    leading: str
    sizes: Mapping[Role, Size]
    targets: Targets


def writes(decided: Decided, observed: Observed, census: Census) -> Iterator[Action]:
    """Everything that is to be done, in order."""
    late = [one for one in decided.rendered.shared if one["kind"] in OPTIONAL_KINDS]
    early = [
        with_old_routers(one, census) if one["kind"] == "RoleBinding" else one
        for one in decided.rendered.shared
        if one not in late
    ]
    loader = [decided.rendered.loader] if decided.rendered.loader is not None else []
    revision = list(_revision_objects(decided)) if decided.may_start else []
    for manifest in (*early, *loader, *revision):
        yield from _kept(manifest, decided, observed)
    yield from _old_workloads(decided, observed, census)
    yield from _red_pool_statuses(decided, observed, census)
    # Kinds of other projects: when their webhooks fail, everything else is done.
    for manifest in late:
        yield from _kept(manifest, decided, observed)
    wanted = {key_of(one) for one in (*early, *late, *loader, *revision)}
    uid = uid_of(observed.resource)
    yield from leftovers(observed.children, wanted, uid, census, decided.leading)


def red_pool_of(service: RedService, pool: Role, observed: Observed) -> Manifest | None:
    """The RedPool of a pool, as it is.

    None also for that of a RedService of the same name that is gone: it leaves too, and its size
    was asked of another.
    """
    have = observed.children.get(ObjectKey(POOL_KIND, pool_name(service.name, pool)))
    if have is None or controller_of(have) not in ("", uid_of(observed.resource)):
        return None
    return have


def _revision_objects(decided: Decided) -> Iterator[Manifest]:
    for pool in decided.rendered.pools:
        yield pool.config
        yield pool.service
    for pool in decided.rendered.pools:
        size = decided.targets[pool.pool].get(decided.rendered.revision, 0)
        yield pool.workload_with(size)


def _kept(manifest: Manifest, decided: Decided, observed: Observed) -> Iterable[Action]:
    if manifest["kind"] == POOL_KIND:
        name = manifest["metadata"]["name"]
        pool = next(one for one in POOLS if pool_name(decided.service.name, one) == name)
        action = keep_red_pool(
            manifest,
            pool_spec(decided.service, pool),
            observed.children,
            observed.amended,
            decided.sizes[pool].seed,
        )
    else:
        action = keep(manifest, observed.children, observed.amended)
    return () if action is None else (action,)


def _old_workloads(decided: Decided, observed: Observed, census: Census) -> Iterator[Action]:
    for pool in POOLS:
        for revision, workload in census.workloads[pool].items():
            if revision == decided.rendered.revision and decided.may_start:
                continue
            replicas = decided.targets[pool].get(revision, 0)
            resized = resize(workload, replicas, observed.amended)
            if resized is not None:
                yield resized


def _red_pool_statuses(decided: Decided, observed: Observed, census: Census) -> Iterator[Action]:
    for objects in decided.rendered.pools:
        pool = objects.pool
        have = red_pool_of(decided.service, pool, observed)
        if have is None:
            continue
        selector = selector_of(
            decided.service.name, pool, one_pod_of_many=objects.pods_per_replica > 1
        )
        ready = census.tally(pool, decided.rendered.revision).ready
        action = red_pool_status(
            have, selector, decided.sizes[pool], census.num_present(pool), ready
        )
        if action is not None:
            yield action
