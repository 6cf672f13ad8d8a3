from __future__ import annotations

import subprocess
import sys

import pytest

from redserve.errors import ConfigError
from redserve.telemetry.tracing import (
    NO_SPAN,
    NOWHERE,
    NoTracing,
    Origin,
    TraceContext,
    context_of,
    request_id_of,
    tracing_to,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_context_comes_in_and_goes_out_as_it_is():
    came = [
        ("user-agent", "x"),
        ("traceparent", PARENT),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
    ]
    context = context_of(came)
    assert context == TraceContext(PARENT, "a=1,b=2")
    assert context.trace_id == TRACE
    assert context.pairs == (("traceparent", PARENT), ("tracestate", "a=1,b=2"))
    assert context_of(context.pairs) == context
    assert context_of([("traceparent", PARENT.encode())]).pairs == (("traceparent", PARENT),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT + "-00",
        PARENT[:-1],
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"{PARENT}\n{PARENT}",
        f"01{PARENT[2:]}x",
    ],
)
def test_what_is_no_context_counts_as_none(text: str):
    assert context_of([("traceparent", text), ("tracestate", "a=1")]) is NOWHERE


def test_two_contexts_are_none_and_newer_versions_are_read_as_far_as_they_are_known():
    assert context_of([("traceparent", PARENT)] * 2) is NOWHERE
    newer = f"cc{PARENT[2:]}"
    assert context_of([("traceparent", newer)]) == TraceContext(PARENT)
    assert context_of([("traceparent", f"{newer}-what-comes")]) == TraceContext(PARENT)


@pytest.mark.parametrize(
    "state",
    [
        "a=" + "x" * 257,
        "a=" + "x" * 200 + ",b=" + "x" * 200 + ",c=" + "x" * 200,
        "a=\x7f",
        "ä=1",
        "SECRETPROMPT",
        "a=1,what is in this picture?",
        "A=1",
        "1a=1",
        "a@1=1",
        "a b=1",
        "a=",
        "a=1=2",
        "a=1\nb=2",
        "=1",
        "a=1,b=2,a=3",
        ",".join(f"k{number}=1" for number in range(33)),
    ],
)
def test_a_state_that_does_not_fit_is_left_out(state: str):
    assert context_of([("traceparent", PARENT), ("tracestate", state)]) == TraceContext(PARENT)


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("a=1 , b=2,,", "a=1,b=2"),
        ("0tenant@vendor=x y;z:1", "0tenant@vendor=x y;z:1"),
        ("a_-*/9=!~", "a_-*/9=!~"),
        (" ", ""),
        (",".join(f"k{number}=1" for number in range(32)),) * 2,
    ],
)
def test_a_state_that_fits_is_passed_on(state: str, kept: str):
    assert context_of([("traceparent", PARENT), ("tracestate", state)]).tracestate == kept


def test_without_a_receiver_contexts_are_passed_on_and_nothing_else():
    tracing = tracing_to("", role="router", name="router", service="s", sampling_percent=100)
    assert isinstance(tracing, NoTracing)
    assert tracing.span("a", 0) is NO_SPAN
    span = tracing.span("a", 0, parent=TraceContext(PARENT))
    assert not span.recording
    assert span.child("b", 1).context == TraceContext(PARENT)
    origin = Origin("r", span.context)
    assert origin.metadata == (("x-request-id", "r"), ("traceparent", PARENT))
    assert request_id_of(origin.metadata) == "r"
    assert origin.log_ids == {"request_id": "r", "trace_id": TRACE}
    assert Origin().metadata == ()
    assert Origin().log_ids == {}
    tracing.close(0)


def test_the_library_is_not_imported_as_long_as_tracing_is_off():
    program = (
        "import sys, redserve_router.assembly, redserve_encoder.replica, redserve_llm.replica\n"
        "from redserve.telemetry.tracing import tracing_to\n"
        "tracing_to('', role='llm', name='', service='')\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "[]"


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "redserve.telemetry.otlp", None)
    with pytest.raises(ConfigError, match=r'install the extra "tracing"') as caught:
        tracing_to("http://a:1", role="llm", name="", service="")
    assert caught.value.field == "otlp_endpoint"
