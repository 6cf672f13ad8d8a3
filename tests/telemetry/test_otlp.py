"""The exporter against a real receiver, one that is not there, and one that does not answer."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from redserve.errors import ConfigError, Overloaded
from redserve.telemetry import otlp
from redserve.telemetry.clock import now_ns
from redserve.telemetry.log import configure
from redserve.telemetry.timeline import Bar
from redserve.telemetry.tracing import TraceContext, context_of, running, tracing_to
from tests.support.otlp import Received, Receiver
from tests.telemetry.test_log import _restore  # noqa: F401  # logs as they were, after each test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.telemetry.tracing import Tracing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = TraceContext(f"00-{TRACE}-{SPAN}-01", "vendor=x")
UNSAMPLED = TraceContext(f"00-{TRACE}-{SPAN}-00")
PATIENCE_S = 30.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running_receiver:
        yield running_receiver


def tracing_of(endpoint: str, percent: float = 100.0, on_lost: Any = lambda _: None) -> Tracing:
    return tracing_to(
        endpoint,
        role="router",
        name="r-0",
        service="s",
        sampling_percent=percent,
        on_lost=on_lost,
    )


def received(receiver: Receiver, number: int) -> dict[str, Received]:
    receiver.wait(lambda spans: len(spans) >= number)
    return {span.name: span for span in receiver.spans}


def test_spans_arrive_as_they_were_made(receiver: Receiver):
    tracing = tracing_of(receiver.endpoint)
    root = tracing.span("a", 10, attributes={"one": 1, "words": ("x", "y")})
    child = root.child("b", 20, kind="client", attributes={"two": 2.5})
    child.fail("OVERLOADED")
    child.end(30)
    child.end(31)
    child.fail("LATER")
    root.event("seen", 25)
    root.set({"three": True})
    root.fail("CANCELLED")
    root.end(40)
    tracing.close(PATIENCE_S)
    a, b = (received(receiver, 2)[name] for name in "ab")
    assert (a.role, a.process, a.kind, a.parent_id) == ("redserve-router", "r-0", "SERVER", "")
    assert (a.start_ns, a.end_ns, a.events) == (10, 40, {"seen": 25})
    assert a.attributes == {"one": 1, "words": ["x", "y"], "three": True, "error.type": "CANCELLED"}
    assert not a.is_error  # the caller's own wish
    assert (b.trace_id, b.parent_id, b.kind) == (a.trace_id, a.span_id, "CLIENT")
    assert (b.start_ns, b.end_ns, b.is_error) == (20, 30, True)
    assert b.attributes == {"two": 2.5, "error.type": "OVERLOADED"}
    assert root.context.traceparent.startswith(f"00-{a.trace_id}-{a.span_id}-")
    assert int(root.context.traceparent[-2:], 16) & 1


def test_bars_become_children_and_follow_from_others(receiver: Receiver):
    tracing = tracing_of(receiver.endpoint)
    root = tracing.span("root", 0)
    other = tracing.span("other", 0)
    bars = [
        Bar("r-0", "transfer", 1, 2, item_index=0, num_tokens=7),
        Bar("r-0", "aborted", 2, 3, item_index=1, detail="gave way"),
        Bar("r-0", "decode", 3, 9),
    ]
    root.add_bars(bars, {0: other.context})
    root.end(10)
    other.end(10)
    tracing.close(PATIENCE_S)
    found = received(receiver, 5)
    assert {found[bar.name].parent_id for bar in bars} == {found["root"].span_id}
    assert found["transfer"].links == (found["other"].span_id,)
    assert found["transfer"].attributes == {"redserve.item": 0, "redserve.tokens": 7}
    assert found["aborted"].is_error
    assert found["aborted"].attributes["error.type"] == "gave way"
    assert (found["decode"].start_ns, found["decode"].end_ns, found["decode"].links) == (3, 9, ())


def test_what_ends_by_an_error_says_so(receiver: Receiver):
    tracing = tracing_of(receiver.endpoint)
    for name, error in (("full", Overloaded("full")), ("bug", KeyError("secret"))):
        with pytest.raises(type(error)), running(tracing.span(name, now_ns())):
            raise error
    with running(tracing.span("well", now_ns())):
        pass
    tracing.close(PATIENCE_S)
    found = received(receiver, 3)
    assert found["full"].attributes == {"error.type": "OVERLOADED"}
    assert found["bug"].attributes == {"error.type": "INTERNAL"}
    assert found["bug"].events == {}  # no traceback: it may quote a request
    assert not found["well"].is_error


def test_what_a_client_did_wrong_is_no_error_of_the_server(receiver: Receiver):
    tracing = tracing_of(receiver.endpoint)
    mistakes = {"INVALID_ARGUMENT", "MODEL_NOT_FOUND", "CONTEXT_TOO_LONG", "OVERLOADED"}
    ours = {"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "CONTENT_MISSING"}
    for reason in mistakes | ours:
        server = tracing.span(f"server {reason}", 1)
        call = server.child(f"call {reason}", 1, kind="client")
        for span in (call, server):
            span.fail(reason)
            span.end(2)
    tracing.close(PATIENCE_S)
    found = received(receiver, 16)
    assert {n for n, span in found.items() if span.is_error} == {
        *(f"server {reason}" for reason in ours),
        *(f"call {reason}" for reason in mistakes | ours),
    }
    assert all(name.endswith(span.attributes["error.type"]) for name, span in found.items())


@pytest.mark.parametrize("percent", [0.0, 100.0])
def test_a_client_that_traces_decides_itself(receiver: Receiver, percent: float):
    tracing = tracing_of(receiver.endpoint, percent)
    dropped = tracing.span("dropped", 1, parent=UNSAMPLED)
    assert not dropped.recording
    assert dropped.context.traceparent.startswith(f"00-{TRACE}-")
    assert dropped.context.traceparent.endswith("-00")
    dropped.end(2)
    kept = tracing.span("kept", 1, parent=SAMPLED)
    assert kept.context.tracestate == "vendor=x"
    kept.end(2)
    tracing.close(PATIENCE_S)
    found = received(receiver, 1)
    assert found.keys() == {"kept"}
    assert (found["kept"].trace_id, found["kept"].parent_id) == (TRACE, SPAN)


def test_as_many_are_recorded_as_the_percentage_says():
    tracing = tracing_of("http://127.0.0.1:1", 25.0)
    recorded = sum(tracing.span("a", 0).recording for _ in range(4000))
    assert 800 < recorded < 1200
    tracing.close(0)
    silent = tracing_of("http://127.0.0.1:1", 0.0)
    assert not any(silent.span("a", 0).recording for _ in range(100))
    silent.close(0)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_receiver_that_is_away_is_told_once_and_nothing_waits_for_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(otlp, "INTERVAL_S", 0.05)
    configure("info", "json", "router")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    tracing = tracing_of(f"http://127.0.0.1:{port}")
    seen: list[dict[str, Any]] = []
    end = time.monotonic() + PATIENCE_S
    while not seen:
        assert time.monotonic() < end
        tracing.span("lost", now_ns()).end(now_ns())
        seen += lines(capfd)
    assert [line["level"] for line in seen] == ["warning"]
    assert seen[0]["endpoint"] == f"http://127.0.0.1:{port}"
    with Receiver(port) as receiver:
        while not receiver.spans:
            assert time.monotonic() < end
            tracing.span("found", now_ns()).end(now_ns())
        tracing.close(PATIENCE_S)
    after = lines(capfd)
    assert [line["event"] for line in after] == ["spans are exported again"]
    assert after[0]["num_lost"] > 0


def test_the_queue_is_bounded_and_so_is_the_end(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The receiver takes the connection and says nothing."""
    monkeypatch.setattr(otlp, "MAX_QUEUED_SPANS", 64)
    monkeypatch.setattr(otlp, "MAX_BATCH_SPANS", 32)
    configure("info", "json", "router")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracing = tracing_of(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        for _ in range(2000):
            tracing.span("a", now_ns()).end(now_ns())
        assert time.monotonic() - start < PATIENCE_S / 2  # a quarter of a second when idle
        start = time.monotonic()
        tracing.close(0.2)
        tracing.close(0.2)
        assert time.monotonic() - start < PATIENCE_S / 2
    told = [line["event"] for line in lines(capfd)]
    assert told == ["spans are left behind: the receiver does not take them in time"]


def test_a_receiver_that_refuses_is_told_too(receiver: Receiver, capfd: pytest.CaptureFixture[str]):
    configure("info", "json", "router")
    receiver.refuses = True
    tracing = tracing_of(receiver.endpoint)
    tracing.span("a", now_ns()).end(now_ns())
    tracing.close(PATIENCE_S)
    (line,) = lines(capfd)
    assert line["level"] == "warning"
    assert line["endpoint"] == receiver.endpoint


@pytest.mark.parametrize("state", ["SECRETPROMPT", "a=1,SECRETPROMPT", "a=SECRETPROMPT,a=1"])
def test_what_a_client_writes_into_headers_is_not_in_the_log(
    receiver: Receiver, capfd: pytest.CaptureFixture[str], state: str
):
    configure("debug", "json", "router")
    sent = [("traceparent", SAMPLED.traceparent), ("tracestate", state)]
    tracing = tracing_of(receiver.endpoint)
    for parent in (context_of(sent), TraceContext(SAMPLED.traceparent, state)):
        span = tracing.span("a", now_ns(), parent=parent)
        span.child("b", now_ns()).end(now_ns())
        span.end(now_ns())
    tracing.close(PATIENCE_S)
    assert lines(capfd) == []


@pytest.mark.parametrize(
    ("endpoint", "used"),
    [
        ("http://collector", "http://collector:4317"),
        ("https://collector/", "https://collector:4317"),
        ("http://[::1]:55", "http://[::1]:55"),
    ],
)
def test_the_port_of_otlp_is_assumed(endpoint: str, used: str):
    assert otlp._with_port(endpoint) == used


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://a:1", "http://", "http://a:99999"])
def test_an_address_that_is_none_is_refused(endpoint: str):
    with pytest.raises(ConfigError, match="no OTLP receiver"):
        tracing_of(endpoint)
