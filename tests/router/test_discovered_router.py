"""A whole router in a cluster: discovery, pools, readiness and streams together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import generate_latest

from redserve.v1 import router_pb2 as pb
from redserve.wire.channel import open_channel
from redserve_router.discovery.timing import Timing
from tests.router.cluster import COLOURS, cluster, picture, question
from tests.router.discovering import ENCODERS, LLMS, QUICK, account_folder, settings_for
from tests.router.fake_api_server import FakeApiServer, endpoint, slice_object
from tests.router.fake_llm import WORDS, FakeLlm
from tests.router.test_dynamic_pools import hold_tokens, until

if TYPE_CHECKING:
    from tests.router.fake_encoder import FakeEncoder

TEXT = "".join(WORDS)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def server():
    server = FakeApiServer()
    await server.start()
    yield server
    await server.stop()


def publish(
    server: FakeApiServer, service: str, *fakes: FakeEncoder | FakeLlm, **conditions: bool
) -> None:
    """One slice per replica: on loopback they differ by port."""
    for fake in fakes:
        told = slice_object(fake.name, service, endpoint("127.0.0.1", **conditions), port=fake.port)
        server.put(told)


@asynccontextmanager
async def discovered(server, folder, num_encoders=1, num_llms=2, **overrides):
    surroundings = {"api_url": server.url, "discovery_timing": Timing(**QUICK)}
    settings = settings_for(account_folder(folder), encoders_required=True, **overrides)
    async with cluster(num_encoders, num_llms, surroundings=surroundings, **settings) as c:
        yield c


async def health_of(c) -> tuple[int, int]:
    """(liveness, readiness)"""
    async with open_channel(c.router.server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        names = ("", "readiness")
        checks = [await stub.Check(health_pb2.HealthCheckRequest(service=n)) for n in names]
    return checks[0].status, checks[1].status


async def test_from_nothing_to_an_answer_without_a_restart(server, tmp_path):
    await server.stop()
    async with discovered(server, tmp_path, encoder_addresses=("127.0.0.1:1",)) as c:
        await until(lambda: "cannot be reached" in (c.router.why_not_ready() or ""))
        assert await health_of(c) == (SERVING, NOT_SERVING)
        async with httpx.AsyncClient(base_url=c.http) as client:
            answer = await client.get("/health")
            assert answer.status_code == 503
            assert "which replicas there are" in answer.json()["reason"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.stub.GetModel(pb.GetModelRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "which replicas there are" in (caught.value.details() or "")
        await server.start()
        await until(lambda: c.router.why_not_ready() == "no LLM replica serves (known: none)")
        publish(server, LLMS, *c.llms)
        await until(lambda: c.router.why_not_ready() == "no encoder serves (known: none)")
        assert await health_of(c) == (SERVING, NOT_SERVING)
        publish(server, ENCODERS, *c.encoders)
        await c.until_ready()
        assert await health_of(c) == (SERVING, SERVING)
        assert (await c.ask(question(picture()))).text == TEXT


async def test_goes_on_while_the_api_server_is_away_and_hears_of_all_that_happened(
    server, tmp_path
):
    async with discovered(server, tmp_path, num_llms=1) as c:
        publish(server, LLMS, *c.llms)
        publish(server, ENCODERS, *c.encoders)
        await c.until_ready()
        await server.stop()
        await until(lambda: "redserve_discovery_synced 0.0" in metrics(c))
        assert await health_of(c) == (SERVING, SERVING)
        assert (await c.ask(question(picture()))).text == TEXT
        await c.llms[0].kill()
        await until(lambda: c.router.why_not_ready())
        why = c.router.why_not_ready()
        assert why.startswith(f"no LLM replica serves (known: {c.llms[0].address}); new replicas")
        new = FakeLlm("llm-new")
        await new.start()
        server.remove(c.llms[0].name)
        publish(server, LLMS, new)
        await server.start()
        await c.until_ready()
        assert (await c.ask(question(picture()))).text == TEXT
        assert c.llms[0].address not in metrics(c)
        await new.kill()


def metrics(c) -> str:
    return generate_latest(c.router.registry).decode()


async def test_a_rolling_restart_of_every_replica_drops_no_stream(server, tmp_path):
    """As Kubernetes does it: a new pod is ready, an old one terminates, drains and is gone."""
    async with discovered(server, tmp_path, num_encoders=2, num_llms=2) as c:
        publish(server, LLMS, *c.llms)
        publish(server, ENCODERS, *c.encoders)
        await c.until_ready()
        answers: list[str] = []
        over = asyncio.Event()

        async def client(n: int) -> None:
            while not over.is_set():
                answer = await c.ask(question(picture(COLOURS[n])), timeout=20)
                answers.append(answer.text)

        async with asyncio.TaskGroup() as clients:
            for n in range(4):
                clients.create_task(client(n))
            fresh = [await replace(server, old) for old in c.llms]
            wanted = {new.address for new in fresh}
            await until(lambda: {r.address for r in c.router.pools.llms} == wanted)
            over.set()
        assert set(answers) == {TEXT}
        assert len(answers) > 8
        for new in fresh:
            await new.kill()


async def replace(server: FakeApiServer, old: FakeLlm) -> FakeLlm:
    """A stream is held in the old pod until the new one has taken over."""
    reached, go = hold_tokens(old)
    await asyncio.wait_for(reached.wait(), 10)
    new = FakeLlm(f"{old.name}-new")
    await new.start()
    publish(server, LLMS, new)
    await new.journal.wait_count("generate", 1)
    publish(server, LLMS, old, ready=False, serving=True, terminating=True)
    num_served = len(new.journal.all("generate"))
    draining = asyncio.ensure_future(old.drain(20))
    await new.journal.wait_count("generate", num_served + 4)
    go.set()
    await asyncio.wait_for(draining, 20)
    server.remove(old.name)
    return new


async def test_unready_everywhere_is_the_control_planes_fault(server, tmp_path):
    """Nodes that lost the control plane: every pod is called unready, and all of them answer."""
    async with discovered(server, tmp_path) as c:
        publish(server, LLMS, *c.llms)
        publish(server, ENCODERS, *c.encoders)
        await c.until_ready()
        publish(server, LLMS, *c.llms, ready=False, serving=False)
        publish(server, ENCODERS, *c.encoders, ready=False, serving=False)
        pools = c.router.pools
        await until(lambda: not any(r.takes_work for r in (*pools.llms, *pools.encoders)))
        assert await health_of(c) == (SERVING, SERVING)
        assert (await c.ask(question(picture()))).text == TEXT
