"""No label comes from what a client sends: the number of series has an end."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from redserve.v1 import router_pb2 as pb
from redserve.v1.types_pb2 import SamplingParams
from tests.e2e.line import to_proto
from tests.e2e.service import Service
from tests.llm.prompts import conversation, picture
from tests.support.tiny_checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.observability, pytest.mark.timeout(300)]

LABELS: Final = {
    "router": {"code", "part", "outcome", "why", "replica_pool", "address", "slo", "model", "le"},
    "encoder": {"reason", "transport", "direction", "state", "le"},
    "llm": {
        "reason", "transport", "direction", "state", "phase", "why", "peer", "le",
    },
}  # fmt: skip
MAX_VALUES: Final = 24
"""Of one label; a histogram has 19 buckets at most."""
MAX_SERIES: Final = 600
"""Of one process."""
PROMISES: Final = ({"name": "available", "indicator": "Availability"},)
NUM_ENCODERS: Final = 2
"""Of `Service`."""
CHECKED: Final = "redserve_transport_check_gigabytes_per_second"
CHECKED_S: Final = 60.0
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0"
Series = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    checkpoint = tiny_checkpoint("qwen2_5_vl", tmp_path_factory.mktemp("checkpoints"))
    running = Service(tmp_path_factory.mktemp("service"), checkpoint, slos=PROMISES)
    # A pair's check gives way to requests and comes back later: its series would begin in a test.
    running.until(lambda _: num_checked(running) == NUM_ENCODERS, CHECKED_S)
    yield running
    running.close()


def num_checked(service: Service) -> int:
    """Pairs that have been measured."""
    return sum(name == CHECKED for name, _ in series_of(shown(service)["llm-0"]))


def shown(service: Service, accept: str = "text/plain") -> dict[str, str]:
    """What every process shows."""
    pages = {}
    for process in service.state()["processes"]:
        url = f"http://{process['metrics_address']}/metrics"
        asked = urllib.request.Request(url, headers={"Accept": accept})
        with urllib.request.urlopen(asked, timeout=10) as page:
            pages[process["name"]] = page.read().decode()
    return pages


def series_of(text: str) -> set[Series]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def post(service: Service, body: Any, path: str = "/v1/chat/completions", **headers: str) -> int:
    """The status of an answer, however bad."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(
        f"http://{service.state()['http_address']}{path}",
        data=data,
        headers={"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def be_odd_by_http(service: Service, mark: str) -> None:
    said = [{"role": "user", "content": "hello"}]
    plain = {"model": "killed", "messages": said, "max_tokens": 2}
    picture_of = {"type": "image_url", "image_url": {"url": f"data:image/{mark};base64,AAAA"}}
    own = {"X-Request-ID": mark, "User-Agent": mark, "traceparent": mark, "Authorization": mark}
    assert post(service, {**plain, "user": mark}, **own) == 200
    assert post(service, {**plain, "model": mark}) == 404
    assert post(service, {**plain, "messages": [{"role": mark, "content": mark}]}) >= 400
    assert post(service, {**plain, "messages": [{"role": "user", "content": [picture_of]}]}) >= 400
    assert post(service, {**plain, mark: mark, "max_tokens": mark}) >= 400
    assert post(service, f"{{{mark}".encode()) >= 400
    assert post(service, plain, f"/{mark}") == 404
    post(service, plain, f"/v1/models/{mark}")


def be_odd_by_grpc(service: Service, mark: str) -> None:
    messages = to_proto(conversation(7, 1), [picture(7)])
    sampling = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    ending(service, pb.GenerateRequest(messages=messages, sampling=sampling, request_id=mark), mark)
    ending(service, pb.GenerateRequest(messages=messages, sampling=sampling, model=mark), mark)
    ending(service, pb.GenerateRequest(), mark)
    unknown: Any = service.channel.unary_unary(f"/redserve.v1.RouterService/{mark}")
    with pytest.raises(grpc.RpcError):
        unknown(b"", timeout=10)
    leave(service, mark)


def leave(service: Service, mark: str) -> None:
    """Go after the first token, and wait until the router has counted that."""

    def num_left() -> float:
        return service.metric("redserve_requests_total", "router", code="CANCELLED")

    before = num_left()
    messages = to_proto(conversation(8, 1), [picture(8)])
    sampling = SamplingParams(temperature=0, max_tokens=3000, ignore_eos=True)
    asked = pb.GenerateRequest(messages=messages, sampling=sampling)
    call = service.stub.Generate(asked, metadata=(("x-odd", mark),))
    next(event for event in call if event.HasField("tokens"))
    call.cancel()
    service.until(lambda _: num_left() > before, 30.0)


def ending(service: Service, asked: pb.GenerateRequest, mark: str) -> None:
    try:
        for _ in service.stub.Generate(asked, timeout=60, metadata=(("x-odd", mark),)):
            pass
    except grpc.RpcError:
        pass


@pytest.fixture(scope="module")
def fresh(service: Service) -> dict[str, set[Series]]:
    """What every process shows before anybody has asked."""
    return {name: series_of(text) for name, text in shown(service).items()}


@pytest.fixture(scope="module")
def marks(service: Service, fresh: dict[str, set[Series]]) -> list[str]:
    """What odd clients have sent, in two rounds."""
    made = [f"odd{uuid.uuid4().hex}" for _ in range(2)]
    for mark in made:
        be_odd_by_http(service, mark)
        be_odd_by_grpc(service, mark)
    return made


def test_nothing_that_was_sent_is_shown(service: Service, marks: list[str]) -> None:
    for accept in ("text/plain", OPEN_METRICS):
        for name, text in shown(service, accept).items():
            assert not [mark for mark in marks if mark in text], name


def test_more_odd_clients_are_no_more_series(service: Service, marks: list[str]) -> None:
    before = {name: series_of(text) for name, text in shown(service).items()}
    mark = f"odd{uuid.uuid4().hex}"
    be_odd_by_http(service, mark)
    be_odd_by_grpc(service, mark)
    after = {name: series_of(text) for name, text in shown(service).items()}
    assert after == before


def test_no_counter_waits_for_its_first_event(
    service: Service, fresh: dict[str, set[Series]], marks: list[str]
) -> None:
    """Of a rate, that event and all before the next scrape would be missing."""
    for name, text in shown(service).items():
        new = {one for one, _ in series_of(text) - fresh[name]}
        assert not [one for one in new if one.endswith(("_total", "_count", "_bucket"))], name


def test_labels_are_those_that_are_known_and_have_few_values(
    service: Service, marks: list[str]
) -> None:
    for name, text in shown(service).items():
        every = series_of(text)
        assert len(every) <= MAX_SERIES, name
        values = defaultdict(set)
        for _, labels in every:
            for label, text_of_label in labels:
                values[label].add(text_of_label)
        assert set(values) <= LABELS[name.partition("-")[0]], name
        for label, distinct in values.items():
            assert len(distinct) <= MAX_VALUES or label == "le", (name, label)
