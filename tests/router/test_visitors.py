"""Pages of others get nothing through a browser; programs notice nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from redserve_router.http.visitors import OwnHosts, Visitors
from tests.router.cluster import cluster

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CHAT = "/v1/chat/completions"
QUESTION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 1,
}


async def anything(scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def asked(
    path: str, method: str, headers: dict[str, str], own_hosts: OwnHosts | None = None
) -> httpx.Response:
    app = Visitors(anything, own_hosts=own_hosts, page_paths=["/", "/playground/facts"])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"host": "demo.example", "origin": "https://demo.example"}, 200),
        # Behind a gateway that writes another Host.
        ({"origin": "https://demo.example", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"origin": "https://elsewhere.example"}, 403),
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[half"}, 403),
    ],
    ids=str,
)
async def test_who_may_ask_questions(headers: dict[str, str], status: int):
    reply = await asked(CHAT, "POST", headers)
    assert reply.status_code == status
    if status == 403:
        assert reply.json()["error"]["type"] == "permission_error"
        assert reply.json()["error"]["code"] == "foreign_origin"


async def test_a_link_from_elsewhere_leads_to_the_page():
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await asked("/", "GET", headers)).status_code == 200


LAPTOP = OwnHosts("127.0.0.1", "box.lan")
EVERYWHERE = OwnHosts("0.0.0.0", "box.lan")


@pytest.mark.parametrize(
    ("own_hosts", "host", "is_own"),
    [
        (LAPTOP, "localhost:8000", True),
        (LAPTOP, "LOCALHOST", True),
        (LAPTOP, "localhost.", True),
        (LAPTOP, "127.0.0.1:8000", True),
        (LAPTOP, "[::1]:8000", True),
        (LAPTOP, "192.0.2.7:8000", False),
        (LAPTOP, "box.lan", False),
        (LAPTOP, "rebound.example:8000", False),
        (LAPTOP, "localhost.rebound.example", False),
        (LAPTOP, "", False),
        (OwnHosts("192.0.2.7", "box"), "192.0.2.7:8000", True),
        (OwnHosts("192.0.2.7", "box"), "192.0.2.8:8000", False),
        (EVERYWHERE, "192.0.2.7:8000", True),
        (EVERYWHERE, "[2001:db8::7]:8000", True),
        (EVERYWHERE, "box:8000", True),
        (EVERYWHERE, "box.lan:8000", True),
        (EVERYWHERE, "box.local:8000", True),
        (EVERYWHERE, "box.rebound.example:8000", False),
        (EVERYWHERE, "127.0.0.1.rebound.example", False),
    ],
)
def test_names_of_this_machine(own_hosts: OwnHosts, host: str, is_own: bool):
    assert (host in own_hosts) is is_own


REBOUND = {"host": "rebound.example:8000"}


@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        ("/", "GET", {}),
        ("/playground/facts", "GET", {}),
        ("/v1/models", "GET", {"sec-fetch-site": "same-origin"}),
        (CHAT, "POST", {"origin": "http://rebound.example:8000"}),
    ],
)
async def test_a_name_that_somebody_else_pointed_here(
    path: str, method: str, headers: dict[str, str]
):
    reply = await asked(path, method, REBOUND | headers, LAPTOP)
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "foreign_host"
    assert "localhost" in reply.json()["error"]["message"]
    # Where an ingress gives it names, all are allowed.
    assert (await asked(path, method, REBOUND | headers)).status_code == 200


@pytest.mark.parametrize(("path", "method"), [(CHAT, "POST"), ("/v1/models", "GET")])
async def test_a_program_may_call_it_what_it_likes(path: str, method: str):
    assert (await asked(path, method, {"host": "host.of.containers"}, LAPTOP)).status_code == 200


async def test_a_router_of_this_machine_refuses_both():
    async with cluster(playground=True) as c, httpx.AsyncClient(base_url=c.http) as client:
        simple = {"content-type": "text/plain", "origin": "https://elsewhere.example"}
        reply = await client.post(CHAT, content=json.dumps(QUESTION), headers=simple)
        assert reply.status_code == 403
        assert reply.headers["x-request-id"]
        assert (await client.get("/", headers=REBOUND)).status_code == 403
        assert (await client.get("/")).status_code == 200
        assert (await client.post(CHAT, json=QUESTION)).status_code == 200
        own = {"origin": c.http, "sec-fetch-site": "same-origin"}
        assert (await client.post(CHAT, json=QUESTION, headers=own)).status_code == 200
