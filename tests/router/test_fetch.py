"""Pictures by address: what may be fetched, and what an attacker may not reach."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from redserve.errors import InvalidArgument, PolicyViolation
from redserve.v1 import router_pb2 as pb
from redserve_router.media import addresses
from redserve_router.media.addresses import is_public
from redserve_router.media.fetch import PictureFetcher
from redserve_router.media.policy import MediaPolicy
from tests.router.cluster import cluster, picture
from tests.router.fake_llm import WORDS

FIELD = "messages[0].parts[0]"


class Site:
    """A small HTTP server that answers as told and counts its callers."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.seen: list[tuple[str, str]] = []
        self.hang = asyncio.Event()
        self.port = 0

    def page(self, path: str, body: bytes, *headers: str, status: str = "200 OK") -> None:
        lines = [f"HTTP/1.1 {status}", *headers]
        if not any(line.lower().startswith(("content-length", "transfer")) for line in headers):
            lines.append(f"Content-Length: {len(body)}")
        self.pages[path] = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        host = next(line[6:] for line in head.split("\r\n") if line.lower().startswith("host: "))
        self.seen.append((host, path))
        if path == "/hang":
            await self.hang.wait()
        writer.write(self.pages.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()


@asynccontextmanager
async def site():
    made = Site()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.hang.set()
        server.close()


@asynccontextmanager
async def fetcher(answers=None, **overrides):
    """A fetcher whose names resolve as told; numeric hosts resolve to themselves."""
    values = {
        "max_images": 4,
        "max_image_bytes": 10_000,
        "max_image_pixels": 1_000_000,
        "max_request_bytes": 40_000,
        "url_fetch": True,
        "url_allow_private": True,
        "url_timeout_s": 5.0,
        **overrides,
    }

    async def resolve(host, _port):
        known = (answers or {}).get(host)
        if known is None:
            if host.replace(".", "").isdigit() or ":" in host:
                return [host]
            raise OSError("no such name")
        return [known] if isinstance(known, str) else known

    made = PictureFetcher(MediaPolicy(**values), resolver=resolve)
    try:
        yield made
    finally:
        await made.close()


async def test_fetches_from_the_address_that_was_checked_and_keeps_the_name():
    async with site() as s, fetcher({"pictures.test": "127.0.0.1"}) as f:
        s.page("/cat.png", picture())
        # No resolver of the system knows this name: only the checked address can have been used.
        body = await f.fetch(f"http://pictures.test:{s.port}/cat.png", FIELD)
        assert body == picture()
        assert s.seen == [(f"pictures.test:{s.port}", "/cat.png")]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.5.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "not an address",
    ],
)
def test_private_addresses(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"]
)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "answers"),
    [
        ("127.0.0.1", {}),
        ("[::1]", {"::1": "::1"}),
        ("inside.test", {"inside.test": "127.0.0.1"}),
        ("mixed.test", {"mixed.test": ["1.1.1.1", "10.0.0.1"]}),
        ("metadata.test", {"metadata.test": "169.254.169.254"}),
        ("mapped.test", {"mapped.test": "::ffff:127.0.0.1"}),
    ],
)
async def test_private_targets_are_refused_before_a_connection(host, answers):
    async with site() as s, fetcher(answers, url_allow_private=False) as f:
        with pytest.raises(PolicyViolation) as caught:
            await f.fetch(f"http://{host}:{s.port}/x", FIELD)
        assert caught.value.field == FIELD
        assert s.seen == []


async def test_system_resolver_knows_localhost_and_number_games():
    """localhost, 0x7f.1 and 2130706433 are all 127.0.0.1 to a C library."""
    policy = MediaPolicy(4, 10_000, 10**6, 40_000, url_fetch=True)
    made = PictureFetcher(policy)
    try:
        for host in ("localhost", "0x7f.1", "2130706433", "127.1"):
            with pytest.raises((PolicyViolation, InvalidArgument)):
                await made.fetch(f"http://{host}:1/x", FIELD)
    finally:
        await made.close()


async def test_redirects_are_checked_again():
    names = {"a.test": "127.0.0.1", "b.test": "127.0.0.1", "evil.test": "127.0.0.1"}
    async with site() as s, fetcher(names, url_allowed_hosts=("a.test", "b.test")) as f:
        s.page("/ok", picture())
        s.page("/hop", b"", f"Location: http://b.test:{s.port}/ok", status="302 Found")
        s.page("/relative", b"", "Location: /ok", status="301 Moved")
        s.page("/out", b"", f"Location: http://evil.test:{s.port}/ok", status="302 Found")
        s.page("/file", b"", "Location: file:///etc/passwd", status="302 Found")
        s.page("/loop", b"", "Location: /loop", status="307 Temporary")
        base = f"http://a.test:{s.port}"
        assert await f.fetch(f"{base}/hop", FIELD) == picture()
        assert await f.fetch(f"{base}/relative", FIELD) == picture()
        with pytest.raises(PolicyViolation, match="not allowed"):
            await f.fetch(f"{base}/out", FIELD)
        with pytest.raises(InvalidArgument, match="http"):
            await f.fetch(f"{base}/file", FIELD)
        s.seen.clear()
        with pytest.raises(PolicyViolation, match="more than 3 times"):
            await f.fetch(f"{base}/loop", FIELD)
        assert len(s.seen) == 4


async def test_redirect_to_a_private_address_is_refused(monkeypatch):
    """The first hop is public by name, the second one is not."""
    asked = []

    async def resolve(host, _port):
        asked.append(host)
        return ["127.0.0.1"] if host == "front.test" else ["10.0.0.1"]

    async with site() as s:
        s.page("/x", b"", "Location: http://inner.test/secret", status="302 Found")
        policy = MediaPolicy(4, 10_000, 10**6, 40_000, url_fetch=True, url_allow_private=False)
        f = PictureFetcher(policy, resolver=resolve)
        # The test's own server cannot have a public address: let that one pass for public.
        monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
        try:
            with pytest.raises(PolicyViolation, match="private"):
                await f.fetch(f"http://front.test:{s.port}/x", FIELD)
        finally:
            await f.close()
        assert asked == ["front.test", "inner.test"]


async def test_name_that_changes_its_address_gains_nothing():
    """DNS rebinding: the second answer is never asked for."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked = []

    async def resolve(host, _port):
        asked.append(host)
        return next(answers)

    async with site() as s:
        s.page("/x", picture())
        policy = MediaPolicy(4, 10_000, 10**6, 40_000, url_fetch=True, url_allow_private=True)
        f = PictureFetcher(policy, resolver=resolve)
        try:
            assert await f.fetch(f"http://rebind.test:{s.port}/x", FIELD) == picture()
        finally:
            await f.close()
        assert asked == ["rebind.test"]


async def test_limits_of_one_fetch():
    async with site() as s, fetcher() as f, fetcher(url_timeout_s=0.3) as impatient:
        base = f"http://127.0.0.1:{s.port}"
        s.page("/declared", b"x" * 10, "Content-Length: 99999999")
        s.page("/large", b"x" * 10_001)
        endless = b"".join(b"1000\r\n" + b"x" * 0x1000 + b"\r\n" for _ in range(10))
        s.page("/chunked", endless, "Transfer-Encoding: chunked")
        s.page("/packed", b"x" * 10, "Content-Encoding: gzip")
        s.page("/error", b"", status="500 Oops")
        for path in ("/declared", "/large", "/chunked"):
            with pytest.raises(PolicyViolation, match="more than 10000 bytes"):
                await f.fetch(base + path, FIELD)
        with pytest.raises(PolicyViolation, match="compressed"):
            await f.fetch(f"{base}/packed", FIELD)
        with pytest.raises(InvalidArgument, match="answers 500"):
            await f.fetch(f"{base}/error", FIELD)
        with pytest.raises(InvalidArgument, match="answers 404"):
            await f.fetch(f"{base}/none", FIELD)
        with pytest.raises(InvalidArgument, match=r"longer than 0\.3 s"):
            await impatient.fetch(f"{base}/hang", FIELD)
        with pytest.raises(InvalidArgument, match="cannot be fetched"):
            await f.fetch("http://127.0.0.1:1/x", FIELD)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1/x",
        "http://",
        "//127.0.0.1/x",
        "x.png",
        "",
        "http://me:secret@127.0.0.1/x",
        "http://[::1/x",
    ],
)
async def test_odd_urls(url):
    async with fetcher() as f:
        with pytest.raises(InvalidArgument) as caught:
            await f.fetch(url, FIELD)
        assert caught.value.field == FIELD


async def test_request_with_an_address_goes_all_the_way():
    async def resolve(_host, _port):
        return ["127.0.0.1"]

    async with (
        site() as s,
        cluster(url_fetch=True, url_allow_private=True, surroundings={"resolver": resolve}) as c,
    ):
        s.page("/cat.png", picture())
        request = pb.GenerateRequest()
        message = request.messages.add(role="user")
        message.parts.add(text="what is it?")
        message.parts.add(image_url=f"http://cats.test:{s.port}/cat.png")
        answer = await c.ask(request)
        assert answer.text == "".join(WORDS)
        assert list(answer.started.num_item_tokens) == [4]


async def test_private_address_is_refused_with_its_place():
    async with (
        site() as s,
        cluster(url_fetch=True) as c,
        httpx.AsyncClient(base_url=c.http) as client,
    ):
        url = f"http://localhost:{s.port}/cat.png"
        parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
        body = {"messages": [{"role": "user", "content": parts}]}
        reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "policy_violation"
        assert reply.json()["error"]["param"] == "messages[0].content[1]"
        assert s.seen == []
