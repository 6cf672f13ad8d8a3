"""A real Prometheus, a real `redserve up` under load, and encoders that stand still."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from redserve.v1 import router_pb2 as pb
from redserve.v1.types_pb2 import SamplingParams
from tests.e2e.line import to_proto
from tests.e2e.service import Service
from tests.llm.prompts import conversation, picture
from tests.observability.prometheus import Prometheus
from tests.support.tiny_checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.observability, pytest.mark.timeout(900)]

FAMILY = "qwen2_5_vl"
PROMISES = (
    {"name": "available", "indicator": "Availability"},
    {"name": "ttft", "indicator": "TimeToFirstToken", "thresholdMilliseconds": 8000},
)
NAMESPACE = "team"
REQUEST_TIMEOUT_S = 10
NUM_CLIENTS = 4
ENCODERS = ("encoder-0", "encoder-1")
SOON_S, LATE_S = 120.0, 300.0
PAGE, DOWN = "RedServeSLOBurnRatePage", "RedServeTargetDown"


class Load:
    """Clients that ask one question after another, each with a picture that is new."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seeds = itertools.count(1000)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(NUM_CLIENTS)]
        self.answers = 0
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """What is under way ends first."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            seed = next(self._seeds)
            messages = to_proto(conversation(seed, 1), [picture(seed)])
            sampling = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
            # No deadline of its own: the service's counts.
            call = self._service.stub.Generate(
                pb.GenerateRequest(messages=messages, sampling=sampling)
            )
            try:
                for _ in call:
                    pass
                self.answers += 1
            except grpc.RpcError:
                self._over.wait(0.2)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    checkpoint = tiny_checkpoint(FAMILY, tmp_path_factory.mktemp("checkpoints"))
    running = Service(
        tmp_path_factory.mktemp("service"),
        checkpoint,
        slos=PROMISES,
        router={"requestTimeoutSeconds": REQUEST_TIMEOUT_S},
        namespace=NAMESPACE,
    )
    yield running
    running.close()


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    config = service.command("rules", "--scrape-config")
    rules = service.command("rules", "-f", str(service.manifest))
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), config, rules)
    yield running
    running.close()


@pytest.fixture(scope="module")
def load(service: Service, prometheus: Prometheus) -> Iterator[Load]:
    made = Load(service)
    yield made
    made.stop()


@contextmanager
def standing_still(service: Service) -> Iterator[None]:
    pids = [service.pid(name) for name in ENCODERS]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def names(prometheus: Prometheus) -> set[str]:
    return {alert["labels"]["alertname"] for alert in prometheus.firing()}


def test_every_process_is_scraped(prometheus: Prometheus, load: Load) -> None:
    expected = {*ENCODERS, "llm-0", "router"}
    prometheus.until(lambda: prometheus.targets() == dict.fromkeys(expected, "up"), SOON_S)
    found = prometheus.query("redserve_replica_serving")
    seen = {(one["metric"]["pool"], one["metric"]["replica_pool"]) for one in found}
    assert seen == {("router", "encoder"), ("router", "llm")}


def test_every_rule_is_evaluated_and_nothing_is_wrong(prometheus: Prometheus, load: Load) -> None:
    share = f'redserve:slo_errors:ratio_rate5m{{namespace="{NAMESPACE}", slo="available"}}'
    prometheus.until(lambda: bool(prometheus.query(share)), SOON_S)
    rules = prometheus.rules()
    assert len(rules) > 20
    prometheus.until(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), SOON_S)
    for rule in rules:
        prometheus.query(rule["query"])
        if rule["type"] == "recording":
            promised = {one["metric"]["slo"] for one in prometheus.query(rule["name"])}
            assert promised == {"available", "ttft"}, rule["name"]
    assert names(prometheus) == set()
    assert load.answers > 0


def test_an_alert_fires_when_encoders_stand_still_and_clears_afterwards(
    service: Service, prometheus: Prometheus, load: Load
) -> None:
    with standing_still(service):
        prometheus.until(lambda: {PAGE, DOWN} <= names(prometheus), LATE_S)
        fired = prometheus.firing()
    pages = {one["labels"]["slo"] for one in fired if one["labels"]["alertname"] == PAGE}
    assert pages <= {"available", "ttft"}
    assert {one["labels"]["pod"] for one in fired if one["labels"]["alertname"] == DOWN} <= set(
        ENCODERS
    )
    for alert in fired:
        notes = alert["annotations"]
        assert alert["labels"]["redservice"] == "killed"
        assert "error expanding" not in notes["description"] + notes["summary"]
        assert notes["runbook_url"].endswith(f"/{alert['labels']['alertname']}.md")
    prometheus.until(lambda: not {PAGE, DOWN} & names(prometheus), LATE_S)
