"""Discovery over real HTTP: what it hears, what it survives, what it says."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from redserve.errors import ConfigError
from redserve.spec.settings import RouterSettings
from redserve_router.discovery.discovery import discovery_for
from redserve_router.discovery.timing import Timing
from tests.router.discovering import ENCODERS, LLMS, discovering, settings_for
from tests.router.fake_api_server import NAMESPACE, FakeApiServer, endpoint, slice_object

if TYPE_CHECKING:
    from pathlib import Path

    from redserve_router.discovery.discovery import Discovery
    from redserve_router.discovery.slices import Object


@pytest.fixture
async def server():
    server = FakeApiServer()
    await server.start()
    yield server
    await server.stop()


def llm_slice(*endpoints: Object, name: str = "llm-1", **fields: Any) -> Object:
    return slice_object(name, LLMS, *endpoints, **fields)


async def test_lists_then_follows(server, tmp_path):
    server.put(llm_slice(endpoint("10.0.0.1")))
    server.put(slice_object("encoder-1", ENCODERS, endpoint("10.0.1.1")))
    server.put(slice_object("other", "demo-llm-deadbeef", endpoint("10.9.9.9")))
    async with discovering(server, tmp_path) as w:
        assert w.members == {
            LLMS: {"10.0.0.1:50051": True},
            ENCODERS: {"10.0.1.1:50051": True},
        }
        server.put(llm_slice(endpoint("10.0.0.1"), endpoint("10.0.0.2", serving=False)))
        await w.until_llms("10.0.0.1", "10.0.0.2")
        assert w.llms == {"10.0.0.1:50051": True, "10.0.0.2:50051": False}
        server.put(llm_slice(endpoint("10.0.0.3"), name="llm-2"))
        await w.until_llms("10.0.0.1", "10.0.0.2", "10.0.0.3")
        server.put(llm_slice(endpoint("10.0.0.1", serving=True, terminating=True)))
        await w.until_llms("10.0.0.1", "10.0.0.3")
        assert w.llms == {"10.0.0.1:50051": False, "10.0.0.3:50051": True}
        server.remove("llm-1")
        await w.until_llms("10.0.0.3")
        server.remove("llm-2")
        await w.until_llms()
        assert w.members[ENCODERS] == {"10.0.1.1:50051": True}
        assert len(server.journal.all("list")) == len(server.journal.all("watch")) == 1


async def test_asks_for_its_own_services_and_for_an_end(server, tmp_path):
    async with discovering(server, tmp_path):
        (listed,), (watched,) = server.journal.all("list"), server.journal.all("watch")
        assert (
            listed["labelSelector"]
            == watched["labelSelector"]
            == (f"kubernetes.io/service-name in ({ENCODERS},{LLMS})")
        )
        assert "resourceVersion" not in listed, "a list is not to be answered from the past"
        assert watched["resourceVersion"] == "100"
        assert watched["allowWatchBookmarks"] == "true"
        assert 30 <= int(watched["timeoutSeconds"]) <= 45


async def test_a_watch_that_ends_goes_on_from_the_last_bookmark(server, tmp_path):
    server.bookmark = 4711
    async with discovering(server, tmp_path) as w:
        await w.until(lambda: w.metric("last_sync_timestamp_seconds"))
        server.end_watches()
        watches = await server.journal.wait_count("watch", 2)
        assert watches[1]["resourceVersion"] == "4711"
        assert len(server.journal.all("list")) == 1
        await w.until_synced()
        assert w.metric("problems_total", kind="unreachable") == 0


@pytest.mark.parametrize("late", [False, True])
async def test_expired_versions_are_listed_again(server, tmp_path, late):
    server.put(llm_slice(endpoint("10.0.0.1")))
    server.expire_late = late
    async with discovering(server, tmp_path) as w:
        with capture_logs() as logs:
            server.compact()
            server.end_watches()
            server.put(llm_slice(endpoint("10.0.0.2")))
            await w.until_llms("10.0.0.2")
        assert len(server.journal.all("list")) == 2
        assert w.metric("synced") == 1, "old news is no failure"
        assert not [entry for entry in logs if entry["log_level"] == "warning"]


async def test_broken_connections_are_made_again_and_nothing_is_missed(server, tmp_path):
    server.put(llm_slice(endpoint("10.0.0.1")))
    async with discovering(server, tmp_path) as w:
        for n in range(2, 6):
            server.cut()
            server.put(llm_slice(endpoint(f"10.0.0.{n}")))
            await w.until_llms(f"10.0.0.{n}")
        await w.until_synced()


async def test_half_an_event_is_no_event(server, tmp_path):
    server.put(llm_slice(endpoint("10.0.0.1")))
    server.garbage = b'{"type": "DELETED", "object": {"metadata": {"name": "llm-1"'
    server.ends_at_once = True
    async with discovering(server, tmp_path) as w:
        await server.journal.wait_count("watch", 3)
        assert w.llms == {"10.0.0.1:50051": True}


async def test_events_may_come_in_pieces(server, tmp_path):
    server.piece = 3
    async with discovering(server, tmp_path) as w:
        # U+0085 and U+2028 end a line for Python, not for JSON.
        told = llm_slice(endpoint("10.0.0.1"))
        told["metadata"]["annotations"] = {"note": "ünü\x85\u2028"}
        server.put(told)
        await w.until_llms("10.0.0.1")
        assert len(server.journal.all("list")) == 1


async def test_what_is_no_json_is_survived(server, tmp_path):
    server.garbage = b"<html>502 Bad Gateway</html>\n"
    async with discovering(server, tmp_path, wait=False) as w:
        await w.until(lambda: w.metric("problems_total", kind="refused"))
        server.put(llm_slice(endpoint("10.0.0.1")))
        await w.until_llms("10.0.0.1")
        await w.until_synced()


async def test_what_is_no_slice_is_survived(server, tmp_path):
    server.garbage = b'{"type": "ADDED", "object": {"ports": 7}}\n'
    async with discovering(server, tmp_path, wait=False) as w:
        await w.until(lambda: w.metric("problems_total", kind="refused"))
        server.put(llm_slice(endpoint("10.0.0.1")))
        await w.until_llms("10.0.0.1")


async def test_silence_is_noticed(server, tmp_path):
    server.put(llm_slice(endpoint("10.0.0.1")))
    server.silent = True
    async with discovering(server, tmp_path, watch_s=0.1, silence_s=0.2) as w:
        server.silent = False
        server.put(llm_slice(endpoint("10.0.0.2")))
        await w.until_llms("10.0.0.2")
        assert w.metric("problems_total", kind="unreachable") == 1
        assert w.llms == {"10.0.0.2:50051": True}


def test_a_dead_connection_is_noticed_within_a_minute():
    timing = Timing()
    assert timing.watch_s + timing.silence_s < 60
    assert all(1 <= timing.watch_seconds() <= timing.watch_s for _ in range(100))


def test_backoff_grows_to_a_limit_and_is_random():
    timing = Timing()
    pauses = [[timing.backoff_s(n) for n in range(1, 2000)] for _ in range(2)]
    assert pauses[0] != pauses[1]
    assert 0 < pauses[0][0] <= timing.first_backoff_s
    assert max(pauses[0]) <= timing.longest_backoff_s
    assert pauses[0][-1] >= timing.longest_backoff_s / 2


async def test_replicas_stay_while_the_api_server_is_away(server, tmp_path):
    server.put(llm_slice(endpoint("10.0.0.1")))
    async with discovering(server, tmp_path) as w:
        assert w.metric("synced") == 1
        heard = w.metric("last_sync_timestamp_seconds")
        assert heard == pytest.approx(time.time(), abs=30)
        with capture_logs() as logs:
            await server.stop()
            await w.until(lambda: (w.metric("problems_total", kind="unreachable") or 0) >= 5)
            assert w.metric("synced") == 0
            assert w.metric("last_sync_timestamp_seconds") == heard
            assert w.llms == {"10.0.0.1:50051": True}
            status = w.discovery.status
            assert status.why_not_ready is None
            assert "new replicas are not heard of: the API server at http://127.0.0.1" in (
                status.remark or ""
            )
            server.put(llm_slice(endpoint("10.0.0.2")))
            await server.start()
            await w.until_llms("10.0.0.2")
            await w.until_synced()
        assert w.metric("synced") == 1
        assert w.discovery.status.remark is None
        said = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
        assert said == [
            "discovery lost the API server: the replicas known stay",
            "discovery follows the API server",
        ], "edges, not every try"


async def test_starts_before_the_api_server(server, tmp_path):
    server.put(llm_slice(endpoint("10.0.0.1")))
    await server.stop()
    async with discovering(server, tmp_path, wait=False) as w:
        await w.until(lambda: w.metric("problems_total", kind="unreachable"))
        why = w.discovery.status.why_not_ready
        assert why is not None
        assert "which replicas there are" in why
        assert f"{server.url} cannot be reached" in why
        assert w.members == {}
        await server.start()
        await w.until_llms("10.0.0.1")
        assert w.discovery.status.why_not_ready is None


async def test_forbidden_names_the_role_and_passes_when_it_is_granted(server, tmp_path):
    server.refusal = (403, 'endpointslices is forbidden: User "x" cannot list')
    async with discovering(server, tmp_path, wait=False) as w:
        await w.until(lambda: (w.metric("problems_total", kind="forbidden") or 0) >= 2)
        why = w.discovery.status.why_not_ready or ""
        for word in ("Role", "list and watch", "discovery.k8s.io", NAMESPACE, "is forbidden"):
            assert word in why
        server.refusal = None
        await w.until_synced()
        assert w.discovery.status.why_not_ready is None


async def test_a_role_that_lists_but_does_not_watch_is_told_and_still_used(server, tmp_path):
    server.put(llm_slice(endpoint("10.0.0.1")))
    server.refusal, server.refuse_watches = (403, "cannot watch"), True
    async with discovering(server, tmp_path, wait=False) as w:
        await w.until(lambda: w.metric("problems_total", kind="forbidden"))
        assert w.discovery.status.why_not_ready is None
        assert "cannot watch" in (w.discovery.status.remark or "")
        server.put(llm_slice(endpoint("10.0.0.2")))
        await w.until_llms("10.0.0.2")
        assert w.metric("synced") == 0


async def test_a_new_token_is_used_for_the_next_request(server, tmp_path):
    async with discovering(server, tmp_path) as w:
        (tmp_path / "token").write_text("second-token")
        server.token = "second-token"
        server.end_watches()
        await server.journal.wait_count("watch", 2)
        server.put(llm_slice(endpoint("10.0.0.1")))
        await w.until_llms("10.0.0.1")
        assert w.metric("problems_total", kind="unauthorized") == 0


async def test_an_old_token_is_told_until_there_is_a_new_one(server, tmp_path):
    server.token = "second-token"
    async with discovering(server, tmp_path, wait=False) as w:
        await w.until(lambda: w.metric("problems_total", kind="unauthorized"))
        assert "answers 401" in (w.discovery.status.why_not_ready or "")
        (tmp_path / "token").write_text("second-token")
        await w.until_synced()


async def test_no_token_is_one_clear_sentence(server, tmp_path):
    async with discovering(server, tmp_path, wait=False) as w:
        (tmp_path / "token").unlink()
        server.cut()
        await w.until(lambda: w.metric("problems_total", kind="credentials"))
        assert "whose token is mounted" in (w.discovery.status.remark or "")
        (tmp_path / "token").write_text("")
        await w.until(lambda: "is empty" in (w.discovery.status.remark or ""))


async def test_a_busy_server_is_left_alone_for_as_long_as_it_wishes(server, tmp_path):
    server.refusal, server.headers = (429, "too many requests"), {"Retry-After": "1"}
    async with discovering(server, tmp_path, wait=False):
        await server.journal.wait_count("list", 2)
        first, second = server.journal.all("at")[:2]
        assert second - first >= 0.95


async def test_watches_that_end_at_once_are_no_hot_loop(server, tmp_path):
    server.ends_at_once = True
    async with discovering(server, tmp_path, shortest_watch_s=0.2):
        await server.journal.wait_count("watch", 4)
        at = server.journal.all("at")
        assert at[4] - at[1] >= 0.55


async def test_the_address_of_the_api_server_is_never_looked_up_in_proxies(
    server, tmp_path, monkeypatch
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with discovering(server, tmp_path) as w:
        assert w.metric("synced") == 1


async def test_stopping_leaves_nothing(server, tmp_path):
    async with discovering(server, tmp_path) as w:
        await w.until_synced()
    await w.until(lambda: server.num_connections == 0)
    assert [t for t in asyncio.all_tasks() if "follower" in repr(t.get_coro())] == []


def ask_for(api_url: str | None, folder: Path, **overrides: Any) -> Discovery | None:
    settings = RouterSettings.model_validate(settings_for(folder, **overrides))
    registry = CollectorRegistry()
    return discovery_for(settings, api_url, lambda _: None, lambda _: None, registry)


def test_given_addresses_need_no_discovery(tmp_path):
    assert ask_for(None, tmp_path, encoder_service="", llm_service="") is None


@pytest.mark.parametrize(
    ("api_url", "overrides", "field", "words"),
    [
        (None, {}, "llm_service", "KUBERNETES_SERVICE_HOST is not set"),
        (None, {"llm_service": ""}, "encoder_service", "KUBERNETES_SERVICE_HOST is not set"),
        ("http://a", {}, "service_namespace", "name the namespace"),
        ("http://a", {"llm_service": ENCODERS}, "llm_service", "must differ"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, api_url, overrides, field, words):
    with pytest.raises(ConfigError) as caught:
        ask_for(api_url, tmp_path, **overrides)
    assert caught.value.field == field
    assert words in caught.value.message
