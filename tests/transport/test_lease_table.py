from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import CorruptTransfer, TensorGone
from redserve.transport.buffer import checksum
from redserve.transport.lease_table import LeaseTable
from redserve.transport.pool import Pool
from tests.strategies import effort

TTL_S = 10.0
GRACE_S = 2.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Owner:
    """An owner that offers one tensor and remembers how leases ended."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pool = Pool(1 << 16, 64)
        self.table = LeaseTable(self.pool, "p-1", TTL_S, self.clock, grace_s=GRACE_S)
        self.ended: list[tuple[str, bool]] = []
        self.region = self.pool.alloc(1000)
        self.region.view[:] = 7
        self.table.offer("k", self.region, self.on_released)

    def on_released(self, key: str, consumed: bool) -> None:
        self.ended.append((key, consumed))


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_a_lease_names_place_size_time_and_checksum(owner: Owner):
    lease = owner.table.prepare("k", "c")
    assert (lease.incarnation, lease.segments) == ("p-1", owner.region.segments)
    assert lease.num_bytes == 1000
    assert lease.ttl_s == TTL_S
    assert lease.checksum == checksum(owner.region)
    assert owner.table.buffer_of(lease.lease_id) is owner.region


def test_nobody_guesses_the_id_of_a_lease_from_others(owner: Owner):
    """Whoever knows it may read what is leased, and end the lease."""
    ids = [owner.table.prepare("k", "c").lease_id for _ in range(200)]
    apart = [abs(later - earlier) for earlier, later in pairwise(sorted(ids))]
    assert min(apart) > 1 << 32
    assert all(0 < lease_id < 1 << 64 for lease_id in ids)
    assert [leased for leased in ids if owner.table.num_bytes_of(leased) != 1000] == []


def test_a_copy_is_of_a_lease_that_runs(owner: Owner):
    owner.region.view[:] = np.arange(1000) % 251
    lease = owner.table.prepare("k", "c")
    assert owner.table.copy_of(lease.lease_id, 900, 2000) == owner.region.view[900:].tobytes()
    owner.clock.now += TTL_S
    with pytest.raises(CorruptTransfer, match="is over"):
        owner.table.copy_of(lease.lease_id, 0, 10)


def test_the_oldest_lease_says_when_to_look_again(owner: Owner):
    assert owner.table.next_due_s is None
    first = owner.table.prepare("k", "c")
    owner.clock.now += 1
    owner.table.prepare("k", "c")
    assert owner.table.next_due_s == TTL_S + GRACE_S - 1
    owner.table.release(first.lease_id, consumed=True)
    assert owner.table.next_due_s == TTL_S + GRACE_S
    owner.clock.now += 100
    assert owner.table.next_due_s == 0
    owner.table.reap()
    assert owner.table.next_due_s is None


def test_an_owner_that_fails_keeps_no_others_memory(owner: Owner):
    bad = owner.pool.alloc(8)

    def fail(key: str, consumed: bool) -> None:
        raise RuntimeError(key)

    owner.table.offer("bad", bad, fail)
    owner.table.prepare("bad", "c")
    owner.table.prepare("k", "c")
    for region in (bad, owner.region):
        region.free()
    owner.clock.now += 100
    assert owner.table.reap() == 2
    assert owner.ended == [("k", False)]
    assert owner.pool.used_bytes == 0


def test_without_checksum_there_is_none(owner: Owner):
    owner.table.offer("bare", owner.pool.alloc(8), owner.on_released, checksum=False)
    assert owner.table.prepare("bare", "c").checksum is None


def test_unknown_withdrawn_and_freed_tensors_are_gone(owner: Owner):
    with pytest.raises(TensorGone, match="'other'"):
        owner.table.prepare("other", "c")
    assert owner.table.withdraw("k")
    assert owner.table.withdraw("k")
    with pytest.raises(TensorGone):
        owner.table.prepare("k", "c")
    owner.table.offer("again", owner.region, owner.on_released)
    owner.region.free()
    with pytest.raises(TensorGone, match="without being withdrawn"):
        owner.table.prepare("again", "c")


def test_a_key_is_offered_once_at_a_time(owner: Owner):
    with pytest.raises(ValueError, match="offered already"):
        owner.table.offer("k", owner.region, owner.on_released)
    owner.table.withdraw("k")
    owner.table.offer("k", owner.region, owner.on_released)


@pytest.mark.parametrize("consumed", [True, False])
def test_release_reports_and_keeps_the_offer(owner: Owner, consumed: bool):
    lease = owner.table.prepare("k", "c")
    assert owner.table.release(lease.lease_id, consumed)
    assert owner.ended == [("k", consumed)]
    assert not owner.table.release(lease.lease_id, consumed)
    assert owner.ended == [("k", consumed)]
    owner.table.prepare("k", "c")


def test_several_consumers_read_at_once(owner: Owner):
    leases = [owner.table.prepare("k", f"c-{number}") for number in range(3)]
    assert len({lease.lease_id for lease in leases}) == 3
    assert not owner.table.withdraw("k")
    owner.region.free()
    for lease in leases:
        assert owner.pool.used_bytes > 0
        assert owner.table.buffer_of(lease.lease_id) is owner.region
        assert owner.table.release(lease.lease_id, consumed=True)
    assert owner.pool.used_bytes == 0
    assert owner.ended == [("k", True)] * 3


def test_an_expired_lease_is_not_valid_but_its_memory_stays_for_the_grace(owner: Owner):
    lease = owner.table.prepare("k", "c")
    owner.table.withdraw("k")
    owner.region.free()
    owner.clock.now += TTL_S
    with pytest.raises(CorruptTransfer):
        owner.table.buffer_of(lease.lease_id)
    assert owner.table.reap() == 0
    assert owner.pool.used_bytes > 0
    owner.clock.now += GRACE_S
    assert owner.table.reap() == 1
    assert owner.pool.used_bytes == 0
    assert owner.ended == [("k", False)]
    assert not owner.table.release(lease.lease_id, consumed=True)


def test_the_grace_is_two_seconds_unless_told():
    """A reader stops when its time is over by its own clock, and bytes are on their way then."""
    clock = Clock()
    pool = Pool(1 << 12, 64)
    table = LeaseTable(pool, "p", TTL_S, clock)
    region = pool.alloc(10)
    table.offer("k", region, lambda *_: None)
    table.prepare("k", "c")
    table.withdraw("k")
    region.free()
    clock.now += TTL_S + 1.9
    assert table.reap() == 0
    assert pool.used_bytes > 0
    clock.now += 0.2
    assert table.reap() == 1
    assert pool.used_bytes == 0


def test_a_late_release_is_refused_and_counts_as_not_consumed(owner: Owner):
    lease = owner.table.prepare("k", "c")
    owner.clock.now += TTL_S
    assert not owner.table.release(lease.lease_id, consumed=True)
    assert owner.ended == [("k", False)]


def test_vanished_consumers_are_reaped_by_the_next_prepare(owner: Owner):
    owner.table.prepare("k", "vanished")
    owner.clock.now += TTL_S + GRACE_S
    owner.table.prepare("k", "c")
    assert owner.ended == [("k", False)]
    assert owner.table.num_leases == 1


def test_reap_takes_a_time_of_its_own(owner: Owner):
    owner.table.prepare("k", "c")
    assert owner.table.reap(owner.clock.now + TTL_S + GRACE_S - 0.001) == 0
    assert owner.table.reap(owner.clock.now + TTL_S + GRACE_S) == 1


def test_the_owner_may_withdraw_and_offer_again_inside_the_callback():
    pool = Pool(1 << 12, 64)
    table = LeaseTable(pool, "p", TTL_S)
    region = pool.alloc(10)

    def once(key: str, consumed: bool) -> None:
        assert consumed
        assert table.withdraw(key)
        region.free()

    table.offer("k", region, once)
    lease = table.prepare("k", "c")
    assert table.release(lease.lease_id, consumed=True)
    assert (pool.used_bytes, table.num_offers, table.num_leases) == (0, 0, 0)


def test_lease_ids_of_another_incarnation_mean_nothing(owner: Owner):
    other = Owner()
    lease = owner.table.prepare("k", "c")
    other.table.prepare("k", "c")
    with pytest.raises(CorruptTransfer):
        other.table.buffer_of(lease.lease_id)
    assert not other.table.release(lease.lease_id, consumed=True)


steps = st.lists(
    st.tuples(
        st.sampled_from(["prepare", "release", "withdraw", "reap", "tick", "offer"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@effort(100)
@given(steps)
def test_memory_returns_exactly_when_owner_and_readers_are_done(script: list[tuple[str, int]]):
    owner = Owner()
    leases: list[int] = []
    offered = True
    for action, number in script:
        if action == "prepare" and offered:
            leases.append(owner.table.prepare("k", f"c-{number}").lease_id)
        elif action == "release" and leases:
            owner.table.release(leases[number % len(leases)], consumed=True)
        elif action == "withdraw" and offered:
            owner.table.withdraw("k")
            owner.region.free()
            offered = False
        elif action == "offer" and not offered:
            owner.region = owner.pool.alloc(1000)
            owner.table.offer("k", owner.region, owner.on_released)
            offered = True
        elif action == "reap":
            owner.table.reap()
        elif action == "tick":
            owner.clock.now += number
    owner.table.withdraw("k")
    owner.region.free()
    assert (owner.pool.used_bytes > 0) == (owner.table.num_leases > 0)
    owner.table.reap(owner.clock.now + TTL_S + GRACE_S)
    assert owner.pool.used_bytes == 0
    assert len(owner.ended) == len(leases)
