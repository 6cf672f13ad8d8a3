"""The page as it is served: what browsers are told, that it is whole, and that it can be off."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

import httpx
import pytest

from redserve.wire.overview import Latency, Overview
from redserve.wire.replicas import ReplicaStatus
from redserve_router.http.page.facts import PoolFacts, page_facts
from redserve_router.media.policy import MediaPolicy
from tests.router.cluster import cluster, picture, question

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# Said once more, for whoever loosens the policy must do so in two places.
POLICY = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'", "blob:"],
    "connect-src": ["'self'"],
    "base-uri": ["'none'"],
    "form-action": ["'none'"],
    "frame-ancestors": ["'none'"],
    "require-trusted-types-for": ["'script'"],
    "trusted-types": ["'none'"],
}
OTHERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
ASSETS = files("redserve_router.http.page").joinpath("assets")


def assets() -> list[Traversable]:
    return sorted(ASSETS.iterdir(), key=lambda asset: asset.name)


def check_headers(reply: httpx.Response) -> None:
    """What browsers must be told with each answer, in words of this file."""
    (policy,) = reply.headers.get_list("content-security-policy")
    said = [one.split() for one in policy.split(";")]
    # Of a directive that is there twice, browsers take the first.
    assert len(said) == len(POLICY), policy
    assert {name: sources for name, *sources in said} == POLICY
    for name, value in OTHERS.items():
        assert reply.headers.get_list(name) == [value], name
    assert not [name for name in reply.headers if name.startswith("access-control-")]


async def test_page_and_all_that_it_names_are_served():
    async with cluster(playground=True) as c, httpx.AsyncClient(base_url=c.http) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        check_headers(page)
        # A page of yesterday's release must not talk to a router of today.
        assert page.headers["cache-control"] == "no-cache"
        todo = re.findall(r'(?:href|src)="(/[^"]*)"', page.text)
        seen = set()
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.add(path)
            asset = await client.get(path)
            assert asset.status_code == 200, path
            check_headers(asset)
            assert asset.headers["cache-control"] == "no-cache"
            imports = re.findall(r'from "\./([^"]*)"', asset.text)
            todo += [f"/playground/{name}" for name in imports]
        served = {path.rpartition("/")[2] for path in seen} | {"index.html"}
        assert served == {asset.name for asset in assets()}
        assert (await client.post("/")).status_code == 405
        assert (await client.get("/playground/../app.py")).status_code == 404


async def test_page_is_off_unless_it_is_switched_on():
    async with cluster() as c, httpx.AsyncClient(base_url=c.http) as client:
        for path in ("/", "/playground/main.js", "/playground/facts"):
            reply = await client.get(path)
            assert reply.status_code == 404
            assert reply.json()["error"]["code"] == "unknown_path"


async def test_facts_tell_of_the_service_and_not_of_others():
    promise = {
        "name": "first",
        "indicator": "TimeToFirstToken",
        "threshold_s": 30.0,
        "target": 0.99,
        "window_s": 86400.0,
        "fair_deadline_s": 1.0,
    }
    async with (
        cluster(2, playground=True, slos=[promise], max_images=3) as c,
        httpx.AsyncClient(base_url=c.http) as client,
    ):
        await c.ask(question("a secret", picture(), request_id="somebody"))
        reply = await client.get("/playground/facts")
        check_headers(reply)
        assert reply.headers["cache-control"] == "no-store"
        facts = reply.json()
        assert facts["model"] == "tiny"
        assert facts["why_not_ready"] is None
        assert facts["max_images"] == 3
        assert facts["max_image_bytes"] == 20 * 1024 * 1024
        assert facts["max_request_bytes"] == 64 * 1024 * 1024
        assert facts["pools"] == [
            {"name": "encoder", "num_serving": 2, "num_known": 2},
            {"name": "llm", "num_serving": 1, "num_known": 1},
        ]
        (slo,) = facts["slos"]
        assert (slo["name"], slo["threshold_s"], slo["attainment"]) == ("first", 30.0, 1.0)
        assert slo["tallies"][0] == {"window_s": 60.0, "good": 1, "bad": 0}
        assert facts["latencies"]["time_to_first_token"]["count"] == 1
        for unwanted in ("somebody", "secret", "127.0.0.1"):
            assert unwanted not in reply.text


def test_facts_are_those_of_the_overview_and_count_who_serves():
    replicas = [
        ReplicaStatus(pool, f"10.0.0.{number}:1", serving, "grpc", {})
        for number, (pool, serving) in enumerate(
            [("llm", False), ("encoder", True), ("encoder", False), ("encoder", True)]
        )
    ]
    first, between, whole = (Latency(n + 0.1, n + 0.2, n + 0.3, n) for n in (1, 2, 3))
    seen = Overview("tiny", 11.0, (), 1.5, 2.5, 3.5, first, between, whole, 7, 5, tuple(replicas))
    policy = MediaPolicy(3, 4_000, 5_000, 6_000)
    facts = page_facts(seen, why_not_ready="no LLM replica serves", policy=policy)
    assert facts.pools == (PoolFacts("encoder", 2, 3), PoolFacts("llm", 0, 1))
    assert facts.why_not_ready == "no LLM replica serves"
    assert (facts.max_images, facts.max_image_bytes, facts.max_request_bytes) == (3, 4_000, 6_000)
    for name in ("model", "uptime_s", "slos", "requests_per_s", "failures_per_s",
                 "output_tokens_per_s", "num_inflight", "num_queued"):  # fmt: skip
        assert getattr(facts, name) == getattr(seen, name), name
    for name, latency in facts.latencies.items():
        assert latency == getattr(seen, name), name
    assert len(facts.latencies) == 3


@pytest.mark.parametrize("asset", assets(), ids=lambda asset: asset.name)
def test_assets_are_plain_and_ours(asset: Traversable):
    text = asset.read_text("utf-8")
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "//www.w3.org/2000/svg"}
    for unwanted in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "@import",
    ):
        assert unwanted not in text
    assert not re.search(r"\sstyle=|\son\w+=\"|<style|<script>", text)
