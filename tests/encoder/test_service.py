"""The other calls: model info, describe, load, overload, metrics, health, drain."""

from __future__ import annotations

import asyncio
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from redserve.errors import ConfigError
from redserve.v1 import encoder_pb2 as pb
from redserve.wire.errors import CONTENT_MISSING, from_rpc_error
from redserve_encoder.fake import FakeVision
from redserve_encoder.replica import EncoderReplica
from redserve_encoder.vision import DeviceLostError
from tests.encoder.support import (
    TIMEOUT_S,
    Gate,
    bench,
    failures,
    item,
    picture,
    published,
    settings,
    sha,
    until,
)


async def test_model_info() -> None:
    async with bench(FakeVision(hidden_size=24, num_layers=4, dtype="bfloat16")) as b:
        info = await b.stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=TIMEOUT_S)
        assert (info.fingerprint, info.family, info.placeholder) == ("fake", "fake", "<image>")
        assert list(info.image_token_ids) == [7]
        assert (info.hidden_size, info.num_layers, info.dtype) == (24, 4, "bfloat16")


async def test_metadata_comes_before_anything_is_encoded() -> None:
    gate = Gate()
    async with bench(FakeVision(wait=gate)) as b:
        blocked = asyncio.create_task(b.encode("r", [item(0, picture())]))
        await gate.batches_entered(1)
        good, bad, large = await b.describe(picture(48, 20), b"nothing", picture(9000, 9000))
        assert good.metadata.num_rows == 6
        assert list(good.metadata.grid) == [1, 2, 3]
        assert good.metadata.replacement_text == "<rrrrrr>"
        assert bad.error.reason == "INVALID_ARGUMENT"
        assert large.error.reason == "POLICY_VIOLATION"
        gate.open()
        await blocked


async def test_describe_checks_hashes_and_asks_for_what_is_missing() -> None:
    data = picture()
    async with bench() as b:
        request = pb.DescribeRequest(
            pictures=[
                pb.Picture(content_hash=sha(b"other"), data=data),
                pb.Picture(content_hash=sha(data)),
            ]
        )
        forged, missing = (await b.stub.Describe(request, timeout=TIMEOUT_S)).pictures
        assert forged.error.reason == "INVALID_ARGUMENT"
        assert missing.error.reason == CONTENT_MISSING
        await b.describe(data)
        request = pb.DescribeRequest(pictures=[pb.Picture(content_hash=sha(data))])
        [known] = (await b.stub.Describe(request, timeout=TIMEOUT_S)).pictures
        assert known.metadata.num_rows == 4
        assert not (await b.stub.Describe(pb.DescribeRequest(), timeout=TIMEOUT_S)).pictures


async def test_an_idle_encoder_prepares_the_first_described_picture_at_once() -> None:
    pictures = [picture(shade=shade) for shade in range(3)]
    async with bench() as b:
        await b.describe(*pictures)
        await b.prepared(pictures[0])
        [event] = await b.encode("r", [item(0, pictures[0], send=False)])
        assert "preprocess" not in {bar.name for bar in event.published.bars}
        assert b.metric("redserve_encode_preprocess_seconds_count") == 1
        # A picture that turns out to be damaged says so when it is asked for.
        whole = picture(64, 64, form="JPEG")
        damaged = whole[: len(whole) - 20]
        [described] = await b.describe(damaged)
        assert described.HasField("metadata")
        await until(lambda: not b.replica.reception._anticipating)
        assert failures(await b.encode("s", [item(0, damaged, rows=16)])) == {0: "INVALID_ARGUMENT"}


async def test_pictures_behind_the_next_batch_are_not_prepared_yet() -> None:
    gate = Gate()
    pictures = [picture(shade=shade) for shade in range(6)]
    async with bench(FakeVision(wait=gate), preprocess_threads=4) as b:
        items = [item(i, data) for i, data in enumerate(pictures)]
        call = asyncio.create_task(b.encode("r", items, idle=True))
        await gate.batches_entered(1)
        await b.prepared(pictures[1])
        assert b.metric("redserve_encode_preprocess_seconds_count") == 2
        gate.open()
        assert sorted(published(await call)) == list(range(6))


async def test_a_full_queue_refuses_new_work_but_not_what_is_cached() -> None:
    gate = Gate(is_open=True)
    cached, running, queued, more = (picture(shade=shade) for shade in range(4))
    async with bench(FakeVision(wait=gate), max_queued_rows=7, batch_rows=4) as b:
        await b.encode("cached", [item(0, cached)])
        gate.is_open = False
        calls = [asyncio.create_task(b.encode("running", [item(0, running)]))]
        await gate.batches_entered(2)
        calls.append(asyncio.create_task(b.encode("queued", [item(0, queued)])))
        await b.waiting(2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await b.encode("more", [item(0, more)])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert from_rpc_error(caught.value).retry_after_s == 1.0
        assert published(await b.encode("again", [item(0, cached)])) == [0]
        assert b.metric("redserve_encode_queued_rows") == 4
        gate.open()
        await asyncio.gather(*calls)


async def test_an_empty_queue_takes_a_request_of_any_size() -> None:
    async with bench(max_queued_rows=1) as b:
        items = [item(i, picture(shade=i)) for i in range(4)]
        assert len(published(await b.encode("r", items))) == 4


async def test_load_is_told_at_once_and_when_it_changes() -> None:
    gate = Gate()
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        request = pb.EncoderServiceWatchLoadRequest(min_interval_ms=1)
        watch = b.stub.WatchLoad(request, timeout=TIMEOUT_S)
        first = await watch.read()
        assert (first.queued_rows, first.running_rows, first.num_items) == (0, 0, 0)
        assert first.serving
        items = [item(i, picture(shade=i)) for i in range(3)]
        call = asyncio.create_task(b.encode("r", items))
        load = first
        while (load.num_items, load.running_rows, load.queued_rows) != (3, 4, 8):
            load = await watch.read()
        gate.open()
        while (load.num_items, load.running_rows, load.queued_rows) != (0, 0, 0):
            load = await watch.read()
        assert load.cache_bytes > 0
        await call
        watch.cancel()


async def test_metrics_are_served() -> None:
    async with bench() as b:
        await b.encode("r", [item(0, picture())])
        url = f"http://127.0.0.1:{b.replica.metrics_port}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url) as response:
            text = response.read().decode()
        assert "redserve_encode_images_total 1.0" in text
        assert "redserve_encode_duration_seconds_count 1.0" in text
        assert "process_resident_memory_bytes" in text


async def readiness(channel: grpc.aio.Channel) -> bool:
    request = health_pb2.HealthCheckRequest(service="readiness")
    answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_drain_hands_over_what_is_here_and_takes_nothing_new() -> None:
    gate = Gate()
    running, queued, held = (picture(shade=shade) for shade in range(3))
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        b.llm.pulls = False
        gate.let()
        await b.encode("held", [item(0, held)])
        assert await readiness(b.channel)
        calls = [asyncio.create_task(b.encode("running", [item(0, running)]))]
        await gate.batches_entered(2)
        calls.append(asyncio.create_task(b.encode("queued", [item(0, queued)])))
        await b.waiting(2)
        draining = asyncio.create_task(b.replica.drain(TIMEOUT_S))
        await until(lambda: not b.replica.reception.load().serving)
        assert not await readiness(b.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await b.encode("new", [item(0, picture(shade=9))])
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        gate.open()
        for call in calls:
            assert published(await call) == [0]
        assert not draining.done()
        for announcement in b.llm.announced:
            await b.llm.pull(announcement)
        assert await draining


async def test_drain_gives_up_at_its_limit_and_close_drops_the_rest() -> None:
    async with bench(all_back=False) as b:
        b.llm.pulls = False
        await b.encode("r", [item(0, picture())])
        assert not await b.replica.drain(0.05)
        await b.replica.close()
        assert b.replica.pool.used_bytes == 0
        assert b.replica.producer.lease_table.num_offers == 0


async def test_a_lost_device_ends_the_replica_with_a_typed_failure() -> None:
    class Broken(FakeVision):
        async def encode(self, batch, destinations):
            raise DeviceLostError("cuda:0 does not answer any more")

    async with bench(Broken(), all_back=False) as b:
        ended = asyncio.create_task(b.replica.run_until_signal())
        assert failures(await b.encode("r", [item(0, picture())])) == {0: "UNAVAILABLE"}
        with pytest.raises(DeviceLostError):
            await ended
        assert not await readiness(b.channel)


async def test_a_port_in_use_is_a_configuration_error() -> None:
    async with bench() as b:
        port = int(b.replica.address.rpartition(":")[2])
        with pytest.raises(ConfigError, match=str(port)):
            EncoderReplica(settings(grpc_port=port), FakeVision())
