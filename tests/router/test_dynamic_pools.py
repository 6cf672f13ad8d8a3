"""Replicas that come, go and return while requests run."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from redserve.errors import Unavailable
from redserve.routing import Member
from redserve.wire.channel import open_channel
from redserve.wire.errors import from_rpc_error
from redserve.wire.health_client import watch_serving
from redserve_router.dispatch.courier import ItemCourier
from tests.router.cluster import COLOURS, Cluster, cluster, picture, question
from tests.router.fake_encoder import FakeEncoder
from tests.router.fake_llm import WORDS, FakeLlm

TEXT = "".join(WORDS)


def only(*fakes: FakeEncoder | FakeLlm, takes_work: bool = True) -> list[Member]:
    return [Member(fake.address, takes_work) for fake in fakes]


def hold_tokens(llm: FakeLlm) -> tuple[asyncio.Event, asyncio.Event]:
    """(reached, go): it stops before its third token until it may go on."""
    reached, go = asyncio.Event(), asyncio.Event()

    async def hold(n, _context):
        if n == 2:
            reached.set()
            await go.wait()

    llm.before_token = hold
    return reached, go


def serving_label(c: Cluster, pool: str, fake: FakeEncoder | FakeLlm) -> float | None:
    labels = {"replica_pool": pool, "address": fake.address}
    return c.router.registry.get_sample_value("redserve_replica_serving", labels)


async def until_serves(c: Cluster, address: str) -> None:
    pools = c.router.pools
    found = await pools.find(
        lambda: (
            any(r.serving and r.address == address for r in (*pools.llms, *pools.encoders)) or None
        ),
        10,
    )
    assert found, pools.report()


async def until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # a closed channel tells nobody
            await asyncio.sleep(0.005)


async def test_a_new_replica_is_used_and_an_old_one_finishes_what_it_has():
    async with cluster() as c:
        old = c.llms[0]
        reached, go = hold_tokens(old)
        running = asyncio.ensure_future(c.ask(question(picture())))
        await asyncio.wait_for(reached.wait(), 10)
        new = FakeLlm("llm-new")
        await new.start()
        (replica,) = c.router.pools.llms
        c.router.pools.set_llms(only(new))
        assert serving_label(c, "llm", old) is None, "its label is gone at once"
        assert [r.address for r in c.router.pools.llms] == [new.address]
        await until_serves(c, new.address)
        assert (await c.ask(question(picture("blue")))).text == TEXT
        assert len(new.journal.all("generate")) == 1
        assert not replica.closed
        go.set()
        assert (await asyncio.wait_for(running, 10)).text == TEXT
        assert len(old.journal.all("generate")) == 1
        await until(lambda: replica.closed)
        assert c.router.pools._llms.leaving == ()
        await new.kill()


async def test_an_idle_replica_is_closed_at_once_and_returns_as_another_one():
    async with cluster(num_llms=2) as c:
        pools = c.router.pools
        (first, second) = pools.llms
        pools.set_llms(only(c.llms[1]))
        await until(lambda: first.closed)
        assert not second.closed
        pools.set_llms(only(*c.llms))
        await until_serves(c, c.llms[0].address)
        (again,) = [r for r in pools.llms if r.address == first.address]
        assert again is not first
        assert again.connection not in (0, first.connection)
        assert second in pools.llms
        assert serving_label(c, "llm", c.llms[0]) == 1


async def test_a_replica_that_returns_before_its_calls_ended_has_never_been_away():
    async with cluster() as c:
        pools = c.router.pools
        reached, go = hold_tokens(c.llms[0])
        running = asyncio.ensure_future(c.ask(question("hello")))
        await asyncio.wait_for(reached.wait(), 10)
        (replica,) = pools.llms
        for _ in range(3):
            pools.set_llms([])
            assert pools.why_not_ready == "no LLM replica serves (known: none)"
            pools.set_llms(only(c.llms[0]))
        assert pools.llms == (replica,)
        assert replica.serving
        assert pools.why_not_ready is None
        go.set()
        assert (await asyncio.wait_for(running, 10)).text == TEXT
        assert (await c.ask(question("hello"))).text == TEXT
        assert not replica.closed


async def test_who_only_finishes_gets_nothing_new_while_there_is_another():
    async with cluster(num_llms=2, num_encoders=2) as c:
        pools = c.router.pools
        leaves, stays = c.llms
        pools.set_llms([*only(leaves, takes_work=False), *only(stays)])
        pools.set_encoders([*only(c.encoders[0], takes_work=False), *only(c.encoders[1])])
        for name in COLOURS[:4]:
            assert (await c.ask(question(picture(name)))).text == TEXT
        assert leaves.journal.all("generate") == []
        assert c.encoders[0].journal.entries == []
        assert serving_label(c, "llm", leaves) == 0
        assert {r.address for r in pools.report() if not r.serving} == {
            leaves.address,
            c.encoders[0].address,
        }
        await stays.kill()
        await pools.find(lambda: None if pools.llms[1].serving else True, 10)
        assert (await c.ask(question("hello"))).text == TEXT
        assert len(leaves.journal.all("generate")) == 1, "the last one that says it serves is asked"
        pools.set_llms(only(leaves))
        assert serving_label(c, "llm", leaves) == 1


async def test_a_stranger_that_takes_no_work_is_not_even_called():
    async with cluster() as c:
        new = FakeLlm("llm-new")
        await new.start()
        pools = c.router.pools
        pools.set_llms([*only(c.llms[0]), *only(new, takes_work=False)])
        assert [r.address for r in pools.llms] == [c.llms[0].address]
        pools.set_llms(only(c.llms[0], new))
        await until_serves(c, new.address)
        await new.kill()


async def test_an_encoder_that_leaves_finishes_its_items():
    async with cluster() as c:
        pools = c.router.pools
        go = asyncio.Event()
        c.encoders[0].gate = lambda _item: go
        running = asyncio.ensure_future(c.ask(question(picture("red"), picture("blue"))))
        await c.encoders[0].journal.wait_count("encode", 1)
        (replica,) = pools.encoders
        pools.set_encoders([])
        assert serving_label(c, "encoder", c.encoders[0]) is None
        assert replica.num_calls == 1
        go.set()
        assert (await asyncio.wait_for(running, 10)).text == TEXT
        assert len(c.encoders[0].journal.all("encode")) == 1
        await until(lambda: replica.closed)


async def test_an_encoder_that_leaves_between_choice_and_call(monkeypatch):
    async with cluster(num_encoders=2) as c:
        pools = c.router.pools
        plan = ItemCourier._plan
        left: list[FakeEncoder] = []

        def plan_then_leave(courier, states):
            planned = plan(courier, states)
            if planned and not left:
                (chosen, *_) = planned.values()
                left.extend(e for e in c.encoders if e.address == chosen.address)
                pools.set_encoders(only(*(e for e in c.encoders if e not in left)))
            return planned

        monkeypatch.setattr(ItemCourier, "_plan", plan_then_leave)
        assert (await c.ask(question(picture()))).text == TEXT
        assert left[0].journal.all("encode") == []


async def test_all_replicas_vanish_and_the_error_is_typed():
    async with cluster(encoder_grace_s=0.1) as c:
        pools = c.router.pools
        pools.set_encoders([])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question(picture()))
        assert isinstance(from_rpc_error(caught.value), Unavailable)
        assert (await c.ask(question("text goes on"))).text == TEXT
        pools.set_llms([])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("hello"))
        error = from_rpc_error(caught.value)
        assert isinstance(error, Unavailable)
        assert error.retry_after_s == 1.0
        assert "no LLM replica serves" in error.message


async def test_a_request_waits_for_a_replica_that_is_not_known_yet():
    async with cluster(llm_grace_s=10) as c:
        pools = c.router.pools
        pools.set_llms([])
        pools.set_encoders([])
        running = asyncio.ensure_future(c.ask(question(picture())))
        await until(lambda: c.router.dispatcher.num_inflight == 1)
        pools.set_llms(only(*c.llms))
        await until_serves(c, c.llms[0].address)
        pools.set_encoders(only(*c.encoders))
        assert (await asyncio.wait_for(running, 10)).text == TEXT


async def test_a_replica_that_refuses_new_work_is_left_without_a_word_to_the_client():
    async with cluster(num_llms=2) as c:
        refused: list[str] = []

        async def refuse(context):
            refused.append("no")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this replica is shutting down")

        c.llms[0].admit = refuse
        answers = await asyncio.gather(*(c.ask(question(picture(n))) for n in COLOURS[:6]))
        assert [answer.text for answer in answers] == [TEXT] * 6
        assert refused, "otherwise this proves nothing"


async def test_stopping_the_router_lets_streams_end_also_those_of_replicas_that_go():
    async with cluster(num_llms=2) as c:
        pools = c.router.pools
        held = [hold_tokens(llm) for llm in c.llms]
        running = [asyncio.ensure_future(c.ask(question(picture(n)))) for n in COLOURS[:2]]
        for reached, _ in held:
            await asyncio.wait_for(reached.wait(), 10)
        stopping = asyncio.ensure_future(c.router.stop(10))
        await until(lambda: c.router.why_not_ready() == "the router is stopping")
        draining = asyncio.ensure_future(c.llms[0].drain(10))
        pools.set_llms(only(c.llms[0], takes_work=False))
        pools.set_encoders([])
        assert not stopping.done()
        for _, go in held:
            go.set()
        answers = await asyncio.wait_for(asyncio.gather(*running), 10)
        assert [answer.text for answer in answers] == [TEXT, TEXT]
        await asyncio.wait_for(asyncio.gather(stopping, draining), 10)


async def test_a_running_request_needs_an_encoder_again_and_gets_a_new_one():
    """The engine lost an item while its encoder went: what a drain in a cluster looks like."""
    async with cluster() as c:
        new = FakeEncoder("encoder-new")
        await new.start()
        c.llms[0].ask_again = (0,)
        go = asyncio.Event()
        c.encoders[0].gate = lambda _item: go
        running = asyncio.ensure_future(c.ask(question(picture())))
        await c.encoders[0].journal.wait_count("encode", 1)
        c.router.pools.set_encoders(only(new))
        await until_serves(c, new.address)
        c.router.pools.set_llms(only(c.llms[0], takes_work=False))
        go.set()
        assert (await asyncio.wait_for(running, 10)).text == TEXT
        assert len(new.journal.all("encode")) == 1
        await new.kill()


async def test_static_addresses_may_be_doubled_and_keep_their_order():
    async with cluster(num_llms=3) as c:
        addresses = [llm.address for llm in c.llms]
        c.router.pools.set_llms(map(Member, [*addresses, *addresses]))
        assert [r.address for r in c.router.pools.llms] == addresses


@pytest.mark.parametrize("required", [False, True])
async def test_whether_encoders_are_required_before_one_is_known(required):
    async with cluster(num_encoders=0, encoders_required=required) as c:
        health = watch_serving(c.router.server.address)
        alive = watch_serving(c.router.server.address, "")
        assert await anext(alive)
        assert await anext(health) is not required
        if required:
            assert c.router.why_not_ready() == "no encoder serves (known: none)"
            encoder = FakeEncoder("encoder-0")
            await encoder.start()
            c.router.pools.set_encoders(only(encoder))
            assert await asyncio.wait_for(anext(health), 10)
            await encoder.kill()
            assert not await asyncio.wait_for(anext(health), 10)
        await health.aclose()
        await alive.aclose()


async def test_old_connections_are_left_without_breaking_their_streams():
    async with cluster(max_connection_age_s=0.2) as c:
        reached, go = hold_tokens(c.llms[0])
        async with open_channel(c.router.server.address) as channel:
            c.stub = type(c.stub)(channel)
            running = asyncio.ensure_future(c.ask(question("hello")))
            await asyncio.wait_for(reached.wait(), 10)
            state = channel.get_state()
            while state is not grpc.ChannelConnectivity.IDLE:  # it was asked to connect anew
                await asyncio.wait_for(channel.wait_for_state_change(state), 10)
                state = channel.get_state()
            go.set()
            assert (await asyncio.wait_for(running, 10)).text == TEXT
            assert (await c.ask(question("hello"))).text == TEXT
