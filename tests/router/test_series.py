"""What a router counts: every series is there before anything has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.router.cluster import Cluster, cluster, picture, question
from tests.router.fake_encoder import BreakCall, Fail, Publish

if TYPE_CHECKING:
    from redserve.v1 import router_pb2 as pb

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def figures(c: Cluster) -> Figures:
    """Every sample, but those of histograms' buckets."""
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"{c.http}/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "le" not in sample.labels
    }


async def fails(c: Cluster, asked: pb.GenerateRequest) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await c.ask(asked)


async def test_trouble_makes_no_series():
    async with cluster(num_encoders=2, llm_grace_s=0.1) as c:
        before = await figures(c)
        outcomes: list[Any] = [
            BreakCall(), Publish(), Fail("OVERLOADED"), Fail("INTERNAL"), Publish(cached=True)
        ]  # fmt: skip
        for encoder in c.encoders:
            encoder.act = lambda *_: outcomes.pop(0) if outcomes else Fail("INVALID_ARGUMENT")
        for asked in (question(picture("red")), question(picture("blue"))):
            await c.ask(asked)
        await fails(c, question(picture("green")))
        await fails(c, question("hello", model="other"))
        await c.llms[0].kill()
        assert await c.router.pools.find(lambda: c.router.pools.why_not_ready, 10)
        await fails(c, question("hello"))
        after = await figures(c)

    def grown(name: str) -> dict[str, float]:
        return {
            ",".join(value for _, value in labels): after[series, labels] - before[series, labels]
            for series, labels in before
            if series == name and after[series, labels] != before[series, labels]
        }

    assert after.keys() == before.keys()
    retries = grown("redserve_item_retries_total")
    assert retries == {"unavailable": 1, "overloaded": 1, "internal": 1}
    assert grown("redserve_items_total") == {"encoded": 1, "encoder_cached": 1, "failed": 1}
    assert grown("redserve_requests_total") == {
        "OK": 2, "INVALID_ARGUMENT": 1, "NOT_FOUND": 1, "UNAVAILABLE": 1
    }  # fmt: skip
