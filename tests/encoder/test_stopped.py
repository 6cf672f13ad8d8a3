"""An encoder process that is stopped in the moment in which it should be told that all is fetched.

The order is forced: it is stopped by whoever reads from it, with the last byte. Over TCP what is
read from is another process, which goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from redserve.errors import PeerLost
from redserve.spec.ucx import ucx_environment
from redserve.transport import connections
from redserve.transport.grpc_stream import GrpcProducer
from redserve.v1 import encoder_pb2 as pb
from redserve.v1 import encoder_pb2_grpc
from redserve.wire.channel import open_channel
from tests.encoder.support import TIMEOUT_S, FakeLlm, item, picture, sha, until
from tests.encoder.test_process import process, ready_line
from tests.support.tiny_checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from redserve.transport.base import Descriptor
    from redserve.transport.buffer import Buffer

pytestmark = pytest.mark.timeout(240)

LONG_S = 3600.0
"""Deadlines and leases end nothing here."""
END_S = 60.0
"""The end of a process on a slow machine; the encoder's own patience is twice as long."""


@pytest.fixture(scope="module", autouse=True)
def _ucx() -> None:
    """UCX reads its environment when the first agent is made, here and in the encoder."""
    for name, value in ucx_environment("tcp", net_devices="lo").items():
        os.environ.setdefault(name, value)


def stop_with_the_last_byte(llm: FakeLlm, pid: int) -> None:
    """Stop the producer when everything is read and nothing is released."""
    transport: Any = llm.puller._transport
    pull = transport.pull

    async def pull_and_stop(descriptor: Descriptor, buffer: Buffer, deadline_s: float) -> None:
        await pull(descriptor, buffer, deadline_s)
        os.kill(pid, signal.SIGSTOP)

    transport.pull = pull_and_stop


async def publish(stub: Any, llm: FakeLlm) -> None:
    """One picture, all the way to the announcement."""
    data = picture(40, 24)
    asked = pb.Picture(content_hash=sha(data), data=data)
    described = await stub.Describe(pb.DescribeRequest(pictures=[asked]), timeout=TIMEOUT_S)
    rows = described.pictures[0].metadata.num_rows
    request = pb.EncodeRequest(
        request_id="r",
        generation=1,
        destination=llm.address,
        items=[item(0, data, rows=rows)],
    )
    assert (await stub.Encode(request, timeout=LONG_S).read()).HasField("published")


class Releases:
    """What becomes of the releases of this process: nobody hears them until that is changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.are_heard = False
        self.num_heard = 0
        really = GrpcProducer.release

        async def release(
            producer: GrpcProducer, lease_id: int, *, consumed: bool, timeout_s: float
        ) -> bool:
            if not self.are_heard:
                raise PeerLost("nobody hears it")
            held = await really(producer, lease_id, consumed=consumed, timeout_s=timeout_s)
            self.num_heard += 1
            return held

        monkeypatch.setattr(GrpcProducer, "release", release)


@pytest.mark.parametrize("told", [True, False], ids=["told-again", "asks"])
@pytest.mark.parametrize("transport", ["grpc", "tcp"])
async def test_a_release_that_was_not_heard_delays_no_end(
    transport: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the release is told again, or the encoder has to ask."""
    monkeypatch.setattr(connections, "RELEASE_PAUSES_S", (0.1,) * (10_000 if told else 0))
    releases = Releases(monkeypatch)
    path = tiny_checkpoint("qwen2_5_vl", tmp_path)
    llm = FakeLlm()
    llm.pulls = False
    await llm.start(transport=transport)
    flags = ["--model-uri", f"file://{path}", "--log-format", "json", "--transport", transport]
    try:
        async with process(*flags, "--lease-ttl-s", str(LONG_S)) as running:
            ready = await ready_line(running)
            async with open_channel(str(ready["address"])) as channel:
                await publish(encoder_pb2_grpc.EncoderServiceStub(channel), llm)
                stop_with_the_last_byte(llm, running.pid)
                await llm.pull(llm.announced[0])
            assert llm.landed.keys() == {("r", 0)}, "the bytes are here in any case"
            running.send_signal(signal.SIGCONT)
            releases.are_heard = True
            if told:
                await until(lambda: releases.num_heard == 1)
            else:
                await until(lambda: ("r", 0) in llm.asked)
                assert releases.num_heard == 0
            running.send_signal(signal.SIGTERM)
            _, err = await asyncio.wait_for(running.communicate(), END_S)
            assert running.returncode == 0
            assert "draining took too long" not in err.decode()
    finally:
        await llm.stop()


async def test_an_llm_replica_that_was_killed_delays_no_end(tmp_path: Path) -> None:
    path = tiny_checkpoint("qwen2_5_vl", tmp_path)
    llm = FakeLlm()
    llm.pulls = False
    await llm.start()
    flags = ["--model-uri", f"file://{path}", "--log-format", "json"]
    async with process(*flags) as running:
        try:
            ready = await ready_line(running)
            async with open_channel(str(ready["address"])) as channel:
                await publish(encoder_pb2_grpc.EncoderServiceStub(channel), llm)
        finally:
            await llm.stop()
        running.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.communicate(), END_S)
        assert running.returncode == 0
