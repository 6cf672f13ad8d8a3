"""The process that a producer is read from over TCP: it may end, and must not outlive."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from redserve.errors import ConfigError, PeerLost, Unavailable
from redserve.transport import producer_side
from redserve.transport.factory import make_producer
from redserve.transport.nixl import reader_process
from redserve.transport.placement import make_pool
from redserve.transport.pool import Pool
from redserve.transport.slab import SharedSlab
from tests.transport.links import MIB, linked, make_link, payload, until
from tests.transport.processes import SMALL, as_json, consumer, producer

LARGE = 64 * MIB


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_its_end_fails_reads_and_nothing_else():
    link = make_link("tcp")
    async with linked(link):
        server = link.side.server
        assert server is not None
        former = link.side.peer_info
        data = payload(LARGE)
        link.offer("k", data)
        region = link.consumer_pool.alloc(LARGE)
        region.view[:1] = ~data[:1]
        running = asyncio.create_task(link.pull("k", region))
        await until(lambda: region.view[0] == data[0])
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(PeerLost):
            await running
        await until(lambda: link.side.peer_info != former)
        now = await link.side.current()
        assert now.incarnation != former.incarnation
        assert link.metric("redserve_transport_read_server_restarts_total") == 1
        await until(lambda: link.table.num_leases == 0)

        region.view[:] = 0
        await link.pull("k", region)
        assert (region.view == data).all()
        with pytest.raises(PeerLost):
            await link.puller.pull(former, "k", region, 5)
        region.free()


async def test_current_waits_for_the_next_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(producer_side, "_WAIT_S", 60.0)
    link = make_link("tcp")
    async with linked(link):
        server = link.side.server
        assert server is not None
        for _ in range(3):
            pid = server.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not server.serving)
            asked = asyncio.create_task(link.side.current())
            await asyncio.sleep(0)
            assert not asked.done()
            assert (await asked).incarnation == link.table.incarnation
            assert server.pid != pid


async def test_current_gives_up_when_there_is_none(monkeypatch: pytest.MonkeyPatch):
    """A server that cannot start again: UCX is told of a device that is not there."""
    link = make_link("tcp")
    async with linked(link):
        server = link.side.server
        assert server is not None
        told: list[bool] = []
        link.side.on_readable(told.append)
        monkeypatch.setenv("UCX_NET_DEVICES", "nothing7")
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: not server.serving)
        asked = [asyncio.create_task(link.side.current()) for _ in range(3)]
        for one in asked:
            with pytest.raises(Unavailable, match="nobody can read"):
                await one
        monkeypatch.setenv("UCX_NET_DEVICES", "lo")
        await until(lambda: server.serving)
        assert (await link.side.current()).incarnation == link.table.incarnation
        await until(lambda: told == [True, False, True])


async def test_one_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch):
    link = make_link("tcp")
    async with linked(link):
        server = link.side.server
        assert server is not None
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr(reader_process, "_PING_S", 0.05)
        await until(lambda: not server.serving)
        monkeypatch.undo()  # or the next one must not be slow either
        await until(lambda: server.serving and server.pid != pid)
        assert not is_alive(pid)
        link.offer("k", payload(SMALL))
        region = link.consumer_pool.alloc(SMALL)
        await link.pull("k", region)
        region.free()


async def test_it_knows_no_secrets_and_writes_no_memory_to_a_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.setenv("UCX_KEEPALIVE_INTERVAL", "3s")
    link = make_link("tcp")
    async with linked(link):
        assert link.side.server is not None
        process = Path(f"/proc/{link.side.server.pid}")
        environment = (process / "environ").read_bytes()
        assert b"canary" not in environment
        assert b"UCX_KEEPALIVE_INTERVAL=3s" in environment
        limits = (process / "limits").read_text().splitlines()
        (cores,) = [line.split() for line in limits if line.startswith("Max core file size")]
        assert cores[4:6] == ["0", "0"]
        pool = [line for line in (process / "maps").read_text().splitlines() if "memfd" in line]
        assert [line.split()[1] for line in pool] == ["r--s"]


async def test_what_a_producer_writes_later_is_what_is_read():
    link = make_link("tcp")
    async with linked(link):
        for seed in range(3):
            data = payload(SMALL, seed)
            source = link.offer(f"k{seed}", data)
            region = link.consumer_pool.alloc(SMALL)
            await link.pull(f"k{seed}", region)
            assert (region.view == data).all()
            link.table.withdraw(f"k{seed}")
            source.free()
            region.free()


@pytest.mark.parametrize("stopped", [False, True])
async def test_it_ends_with_its_producer(stopped: bool):
    async with producer("tcp", SMALL) as there:
        pid = there.read_server()
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        there.send(signal.SIGKILL)
        await there.wait()
        await until(lambda: not is_alive(pid))


@pytest.mark.timeout(240)
async def test_readers_that_leave_in_the_middle_do_not_end_it():
    """They wait for what is under way: it sends nothing to anybody who is gone."""
    num_guests, size = 4, LARGE
    async with producer("tcp", size) as there, AsyncExitStack() as stack:
        pid = there.read_server()
        start = (stack.enter_async_context(consumer("tcp", 2 * size)) for _ in range(num_guests))
        guests = await asyncio.gather(*start)
        for guest in guests:
            begun = await guest.ask("start", peer=as_json(there), size=size, deadline_s=200)
            assert begun["reading"]
        there.send(signal.SIGSTOP)  # so that whoever does not wait is gone before it is answered
        ends = [asyncio.create_task(guest.end("leave patiently")) for guest in guests]
        await asyncio.wait(ends, timeout=1.0)
        there.send(signal.SIGCONT)
        assert await asyncio.gather(*ends) == [0] * num_guests
        # A new reader of all of it comes after them: what they left behind has been seen by then.
        async with consumer("tcp", size) as last:
            pulled = await last.ask("pull", peer=as_json(there), size=size, deadline_s=200)
        assert pulled["whole"], pulled
        assert there.read_server() == pid


async def test_signals_of_a_terminal_are_not_for_it():
    async with producer("tcp", SMALL) as there:
        pid = there.read_server()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        # The kernel delivers before it runs the process again, and so before it answers.
        assert (await there.ask("current"))["incarnation"] == there.hello["incarnation"]
        assert there.read_server() == pid
        assert is_alive(pid)


def test_close_ends_it_even_if_it_hangs():
    side = make_producer(
        "tcp", make_pool("tcp", MIB, None, is_source=True), "p", "127.0.0.1:1", 1.0, None
    )
    assert side.server is not None
    pid = side.server.pid
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    side.close()
    assert time.monotonic() - started < 10
    assert not is_alive(pid)
    side.close()


def test_a_start_that_fails_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UCX_NET_DEVICES", "nothing7")
    with pytest.raises(ConfigError, match="TCP is not to be had: UCX cannot start") as caught:
        make_producer(
            "tcp", make_pool("tcp", MIB, None, is_source=True), "p", "127.0.0.1:1", 1.0, None
        )
    assert "UCX_NET_DEVICES=nothing7" in caught.value.message


def test_it_needs_memory_that_can_be_shared():
    with pytest.raises(TypeError, match="make_pool"):
        make_producer("tcp", Pool(4096), "p", "127.0.0.1:1", 1.0, None)


def test_memory_that_cannot_be_shared_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(ConfigError, match="no memory of 4096 bytes that processes share") as caught:
        make_pool("tcp", 4096, None, is_source=True)
    assert caught.value.field == "spec.transport.type"


def test_shared_memory_is_mapped_from_the_start_at_both_ends():
    """Else the first read of a page would wait for the kernel."""
    num_bytes = 64 * 4096
    mine = SharedSlab(num_bytes)
    theirs = SharedSlab(num_bytes, mine.descriptor)
    assert resident_bytes(mine.address) == num_bytes
    assert resident_bytes(theirs.address) == num_bytes


def resident_bytes(address: int) -> int:
    """Of the mapping of this process that begins there; see proc(5), smaps."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:x}-"):
            break
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def test_shared_memory_is_the_same_for_all_and_cannot_shrink():
    mine = SharedSlab(2 * 4096)
    theirs = SharedSlab(2 * 4096, mine.descriptor)
    assert not mine.host.any()
    mine.write(4095, b"ab")
    assert bytes(theirs.read(4095, 4097)) == b"ab"
    with pytest.raises(PermissionError):
        os.ftruncate(mine.descriptor, 0)
    with pytest.raises(TypeError, match="read-only"):
        theirs.write(0, b"c")
    descriptor = mine.descriptor
    del mine
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert bytes(theirs.read(4095, 4097)) == b"ab"
