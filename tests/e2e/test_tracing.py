"""Spans and log lines of one request through real processes, as a real OTLP receiver gets them."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from redserve.telemetry.clock import now_ns
from redserve.v1 import router_pb2 as pb
from redserve.v1.types_pb2 import SamplingParams
from tests.e2e.line import to_proto
from tests.e2e.service import ANSWER_S, NAME, NUM_TOKENS, Service, rest_of
from tests.llm.prompts import conversation, picture
from tests.support.otlp import Received, Receiver
from tests.support.tiny_checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

FAMILY = "qwen2_5_vl"
NUM_IMAGES = 4
CLIENT_SPAN = "b7ad6b7169203331"
STEP_NS = 1_000_000
"""Clocks of processes of one machine agree better than this."""
LEAVING_NS = 2_000_000_000
"""A process hears this much after its caller, at the latest, that the caller has gone."""
SECRET = "Zebrafish"
ENCODERS = ("encoder-0", "encoder-1")
BACK_S = 120.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: Path, receiver: Receiver
) -> Iterator[Service]:
    running = Service(
        tmp_path_factory.mktemp("service"),
        tiny_checkpoint(FAMILY, checkpoints),
        monitoring={
            "tracing": {"otlpEndpoint": receiver.endpoint, "samplingPercent": 0},
            "logFormat": "JSON",
        },
    )
    yield running
    running.close()


def trace_id(number: int) -> str:
    return f"{number:032x}"


def traceparent(number: int, *, sampled: bool = True) -> str:
    return f"00-{trace_id(number)}-{CLIENT_SPAN}-{int(sampled):02x}"


def ask(service: Service, number: int, num_images: int = NUM_IMAGES, **more: Any) -> Any:
    """A request that is part of a trace of the client's; its prompt has a word to look for."""
    images = [picture(number * 10 + index) for index in range(num_images)]
    messages = to_proto(conversation(number, num_images), images)
    messages[0].parts.append(pb.Part(text=SECRET))
    timeout_s = more.pop("timeout_s", ANSWER_S)
    sampling = {"temperature": 0, "max_tokens": NUM_TOKENS, "ignore_eos": True, **more}
    return service.stub.Generate(
        pb.GenerateRequest(
            messages=messages,
            sampling=SamplingParams(**sampling, stop=[SECRET]),
            request_id=f"r-{number}",
        ),
        timeout=timeout_s,
        metadata=(("traceparent", traceparent(number)),),
    )


def names(spans: list[Received], **wanted: str) -> list[Received]:
    return [
        span
        for span in spans
        if all(getattr(span, name) == value for name, value in wanted.items())
    ]


def one(spans: list[Received], **wanted: str) -> Received:
    found = names(spans, **wanted)
    assert len(found) == 1, (wanted, spans)
    return found[0]


def whole_trace(receiver: Receiver, number: int, num_items: int) -> list[Received]:
    """All spans of a trace, once the processes have sent theirs."""

    def is_whole(received: list[Received]) -> bool:
        spans = names(received, trace_id=trace_id(number))
        return (
            bool(names(spans, kind="SERVER", role="redserve-router"))
            and bool(names(spans, kind="SERVER", role="redserve-llm"))
            and len(names(spans, kind="SERVER", role="redserve-encoder")) == num_items
        )

    receiver.wait(is_whole)
    return receiver.of_trace(trace_id(number))


def test_the_spans_of_a_request_are_one_tree(service: Service, receiver: Receiver) -> None:
    before_ns = now_ns()
    _, finished = rest_of(ask(service, 1))
    after_ns = now_ns()
    spans = whole_trace(receiver, 1, NUM_IMAGES)
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)

    root = one(spans, parent_id=CLIENT_SPAN)
    assert (root.role, root.process, root.kind) == ("redserve-router", "router", "SERVER")
    assert before_ns - STEP_NS <= root.start_ns < root.end_ns <= after_ns + STEP_NS
    assert all(span.parent_id in by_id for span in spans if span is not root)
    check_times(spans, by_id)

    calls = names(spans, role="redserve-router", kind="CLIENT")
    assert {call.parent_id for call in calls} == {root.span_id}
    assert {call.name for call in calls} == {"generate", "encode"}
    check_engine(spans, one(calls, name="generate"))
    check_encoders(spans, names(calls, name="encode"))
    assert {span.name for span in spans if span.parent_id == root.span_id} == {
        "preprocess", "describe", "tokenize", "generate", "encode",
    }  # fmt: skip
    check_root(root, finished)
    assert not any(span.is_error for span in spans)
    assert SECRET not in repr(spans)


def check_times(spans: list[Received], by_id: dict[str, Received], leaving_ns: int = 0) -> None:
    """Spans lie within their parents; only of a request that is given up, some may end later.

    Args:
        spans: Of one trace.
        by_id: The same.
        leaving_ns: How much later a process may hear of the end than its caller.
    """
    for span in spans:
        assert 0 < span.start_ns <= span.end_ns
        parent = by_id.get(span.parent_id)
        if parent is not None:
            is_call = parent.process != span.process
            before_ns = STEP_NS if is_call else 0
            after_ns = max(STEP_NS, leaving_ns) if is_call else 0
            assert parent.start_ns - before_ns <= span.start_ns, (parent, span)
            assert span.end_ns <= parent.end_ns + after_ns, (parent, span)


def check_engine(spans: list[Received], call: Received) -> None:
    server = one(spans, parent_id=call.span_id)
    assert (server.role, server.process, server.kind) == ("redserve-llm", "llm-0", "SERVER")
    parts = names(spans, parent_id=server.span_id)
    queue, decode = one(parts, name="queue"), one(parts, name="decode")
    chunks, transfers = names(parts, name="prefill"), names(parts, name="transfer")
    assert queue.end_ns <= min(chunk.start_ns for chunk in chunks)
    assert decode.start_ns >= max(chunk.end_ns for chunk in chunks) - STEP_NS
    tokens = sum(chunk.attributes["redserve.tokens"] for chunk in chunks)
    assert tokens == server.attributes["redserve.prompt_tokens"]
    assert sorted(part.attributes["redserve.item"] for part in transfers) == [*range(NUM_IMAGES)]
    for transfer in transfers:
        (origin,) = [span for span in spans if span.span_id in transfer.links]
        assert (origin.role, origin.name) == ("redserve-encoder", "item")
        assert origin.attributes["redserve.item"] == transfer.attributes["redserve.item"]
        encode = one(spans, parent_id=origin.span_id, name="encode")
        assert encode.end_ns <= transfer.start_ns + STEP_NS


def check_encoders(spans: list[Received], calls: list[Received]) -> None:
    items = names(spans, name="item")
    assert {call.span_id for call in calls} == {item.parent_id for item in items}
    assert {item.process for item in items} == set(ENCODERS)
    assert sorted(item.attributes["redserve.item"] for item in items) == [*range(NUM_IMAGES)]
    for item in items:
        assert (item.role, item.kind) == ("redserve-encoder", "SERVER")
        order = sorted(names(spans, parent_id=item.span_id), key=lambda span: span.start_ns)
        worked = [span.name for span in order if span.name != "queue"]
        assert worked[-2:] == ["encode", "publish"]
        assert set(worked[:-2]) <= {"preprocess"}


def check_root(root: Received, finished: pb.Finished) -> None:
    said, usage = root.attributes, finished.usage
    assert root.name == f"chat {said['gen_ai.request.model']}"
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "redserve"
    assert said["gen_ai.response.model"] == said["gen_ai.request.model"]
    assert said["gen_ai.request.max_tokens"] == NUM_TOKENS
    assert said["gen_ai.request.temperature"] == 0
    assert said["gen_ai.usage.input_tokens"] == usage.num_prompt_tokens
    assert said["gen_ai.usage.output_tokens"] == usage.num_output_tokens == NUM_TOKENS
    assert said["gen_ai.response.finish_reasons"] == ["length"]
    assert said["gen_ai.response.id"] == said["redserve.request_id"] == "r-1"
    assert said["redserve.images"] == NUM_IMAGES
    assert 0 < said["redserve.time_to_first_token_s"] < (root.end_ns - root.start_ns) / 1e9
    moments = [root.events[name] for name in ("admitted", "first_token", "last_token")]
    assert [root.start_ns, *moments, root.end_ns] == sorted([root.start_ns, *moments, root.end_ns])


def post(service: Service, number: int, *, sampled: bool = True, **body: Any) -> int:
    asked = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 2} | body
    request = urllib.request.Request(
        f"http://{service.state()['http_address']}/v1/chat/completions",
        json.dumps(asked).encode(),
        {
            "Content-Type": "application/json",
            "traceparent": traceparent(number, sampled=sampled),
            "x-request-id": f"r-{number}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_http_carries_contexts_too_and_the_client_decides(
    service: Service, receiver: Receiver
) -> None:
    assert post(service, 2, sampled=False) == 200
    assert post(service, 3) == 200
    spans = whole_trace(receiver, 3, 0)
    root = one(spans, parent_id=CLIENT_SPAN)
    assert root.attributes["gen_ai.usage.output_tokens"] == 2
    assert not receiver.of_trace(trace_id(2))


def test_a_mistake_of_the_client_is_in_its_trace_without_its_words(
    service: Service, receiver: Receiver
) -> None:
    assert post(service, 4, model=SECRET) == 404
    receiver.wait(lambda spans: bool(names(spans, trace_id=trace_id(4))))
    (root,) = receiver.of_trace(trace_id(4))
    assert not root.is_error  # of the service
    assert root.attributes["error.type"] == "MODEL_NOT_FOUND"
    assert SECRET not in repr(root)


def test_a_deadline_shows_where_the_time_went(service: Service, receiver: Receiver) -> None:
    pids = [service.pid(name) for name in ENCODERS]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        # Nothing is asked of encoders before the engine has the text: this size is known.
        with pytest.raises(grpc.RpcError) as caught:
            rest_of(ask(service, 5, timeout_s=3.0))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    receiver.wait(
        lambda spans: (
            len(names(spans, trace_id=trace_id(5), kind="SERVER", name="generate")) == 1
            and bool(names(spans, trace_id=trace_id(5), parent_id=CLIENT_SPAN))
        )
    )
    spans = receiver.of_trace(trace_id(5))
    root = one(spans, parent_id=CLIENT_SPAN)
    assert root.attributes["error.type"] in ("DEADLINE_EXCEEDED", "CANCELLED")
    call = one(spans, parent_id=root.span_id, name="generate")
    server = one(spans, parent_id=call.span_id)
    assert server.attributes["error.type"] in ("DEADLINE_EXCEEDED", "CANCELLED")
    assert names(spans, parent_id=server.span_id, name="prefill")  # the text before the pictures
    assert not names(spans, parent_id=server.span_id, name="transfer")
    check_times(spans, {span.span_id: span for span in spans}, LEAVING_NS)


def let_both_encode(service: Service, receiver: Receiver) -> None:
    """The router may still keep work from an encoder that did not answer a moment ago."""
    for number in range(100, 120):
        rest_of(ask(service, number, num_images=8))
        items = names(whole_trace(receiver, number, 8), name="item")
        if {item.process for item in items} == set(ENCODERS):
            return
    raise AssertionError("one of the encoders is given nothing")


def test_images_of_an_encoder_that_dies_show_both_tries(
    service: Service, receiver: Receiver
) -> None:
    let_both_encode(service, receiver)
    victim = ENCODERS[0]
    pid = service.pid(victim)
    os.kill(pid, signal.SIGSTOP)
    try:
        call = ask(service, 11, num_images=8)
        assert next(call).HasField("started")
    finally:
        os.kill(pid, signal.SIGKILL)
    rest_of(call)
    spans = whole_trace(receiver, 11, 8)
    root = one(spans, parent_id=CLIENT_SPAN)
    assert not root.is_error
    calls = names(spans, parent_id=root.span_id, name="encode")
    lost = [span for span in calls if span.is_error]
    assert lost
    assert {span.attributes["error.type"] for span in lost} == {"UNAVAILABLE"}
    items = names(spans, name="item")
    assert {item.process for item in items} == {ENCODERS[1]}
    assert {item.attributes["redserve.attempt"] for item in items} == {1, 2}
    assert sorted(item.attributes["redserve.item"] for item in items) == [*range(8)]
    assert not {item.parent_id for item in items} & {span.span_id for span in lost}
    service.until(lambda state: is_back(state, victim, pid), BACK_S)


def is_back(state: dict[str, Any], name: str, former_pid: int) -> bool:
    pids = [process["pid"] for process in state["processes"] if process["name"] == name]
    return state["phase"] == "ready" and pids != [former_pid]


def test_an_engine_that_dies_is_an_error_in_the_trace(service: Service, receiver: Receiver) -> None:
    pid = service.pid("llm-0")
    call = ask(service, 6, max_tokens=3000)
    while not next(call).HasField("tokens"):
        pass
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(grpc.RpcError):
        rest_of(call)
    receiver.wait(lambda spans: bool(names(spans, trace_id=trace_id(6), parent_id=CLIENT_SPAN)))
    spans = receiver.of_trace(trace_id(6))
    root = one(spans, parent_id=CLIENT_SPAN)
    handed_over = one(spans, parent_id=root.span_id, name="generate", kind="CLIENT")
    for span in (root, handed_over):
        assert span.is_error
        assert span.attributes["error.type"] == "UNAVAILABLE"
    assert root.attributes["gen_ai.usage.output_tokens"] > 0
    service.until(lambda state: is_back(state, "llm-0", pid), BACK_S)


def log_lines(service: Service, process: str) -> list[dict[str, Any]]:
    folder = service.log.parent / f"run/redserve/{NAME}"
    (path,) = folder.rglob(f"{process}.log")
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def test_the_log_has_one_line_per_request_with_both_ids(
    service: Service, receiver: Receiver
) -> None:
    rest_of(ask(service, 7, num_images=2))
    assert post(service, 8, content=SECRET) == 400
    whole_trace(receiver, 7, 2)
    lines = log_lines(service, "router")
    (line,) = [line for line in lines if line.get("request_id") == "r-7"]
    assert line["event"] == "request ended"
    assert line["level"] == "info"
    assert line["trace_id"] == trace_id(7)
    assert line["code"] == "OK"
    assert line["images"] == 2
    assert line["output_tokens"] == NUM_TOKENS
    assert 0 < line["ttft_ms"] < line["duration_ms"]
    (refused,) = [line for line in lines if line.get("request_id") == "r-8"]
    assert (refused["event"], refused["code"]) == ("request refused", "INVALID_ARGUMENT")
    assert refused["trace_id"] == trace_id(8)
    assert not any(SECRET in repr(line) for line in lines)


def metrics(service: Service, accept: str) -> tuple[str, str]:
    url = f"http://{service.state()['http_address']}/metrics"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept})) as page:
        return page.headers["Content-Type"], page.read().decode()


def test_latencies_lead_to_their_traces(service: Service, receiver: Receiver) -> None:
    rest_of(ask(service, 9))
    kind, page = metrics(service, "application/openmetrics-text;version=1.0.0,*/*;q=0.1")
    assert kind.startswith("application/openmetrics-text")
    for name in (
        "redserve_time_to_first_token_seconds",
        "redserve_time_per_output_token_seconds",
        "redserve_request_duration_seconds",
    ):
        buckets = [line for line in page.splitlines() if line.startswith(f"{name}_bucket")]
        assert any(f'# {{trace_id="{trace_id(9)}"}}' in line for line in buckets), buckets
    kind, page = metrics(service, "*/*")
    assert kind.startswith("text/plain")
    assert "trace_id" not in page


def test_what_is_left_is_sent_before_the_processes_end(
    tmp_path: Path, checkpoints: Path, receiver: Receiver
) -> None:
    running = Service(
        tmp_path,
        tiny_checkpoint(FAMILY, checkpoints),
        monitoring={"tracing": {"otlpEndpoint": receiver.endpoint, "samplingPercent": 100}},
    )
    before = len(receiver.spans)
    try:
        rest_of(running.ask(10, 2))
    finally:
        running.close()
    spans = receiver.spans[before:]
    assert len({span.trace_id for span in spans}) == 1
    assert {span.role for span in spans if span.kind == "SERVER"} == {
        "redserve-router", "redserve-encoder", "redserve-llm",
    }  # fmt: skip
