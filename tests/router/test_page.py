"""The page as it is served: what browsers are told, that it is whole, and that it can be off."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

import httpx
import pytest

from redserve_router.http.page.playground import HEADERS
from tests.router.cluster import cluster, picture, question

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

ASSETS = files("redserve_router.http.page").joinpath("assets")


def assets() -> list[Traversable]:
    return sorted(ASSETS.iterdir(), key=lambda asset: asset.name)


async def test_page_and_all_that_it_names_are_served():
    async with cluster(playground=True) as c, httpx.AsyncClient(base_url=c.http) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for name, value in HEADERS.items():
            assert page.headers[name] == value
        todo = re.findall(r'(?:href|src)="(/[^"]*)"', page.text)
        seen = set()
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.add(path)
            asset = await client.get(path)
            assert asset.status_code == 200, path
            assert asset.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
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
