from __future__ import annotations

import json

import pytest

from redserve.v1 import router_pb2 as pb
from redserve.wire.overview import (
    Latency,
    Overview,
    SloStatus,
    WindowTally,
    overview_from_proto,
    overview_to_proto,
)
from redserve.wire.replicas import ReplicaStatus

UP = SloStatus("up", "Availability", None, 0.999, 60.0, (), None, None)
FIRST = SloStatus(
    "first", "TimeToFirstToken", 0.5, 0.99, 60.0,
    (WindowTally(60.0, 1, 2), WindowTally(0.0, 3, 4)), 0.0, -1.5,
)  # fmt: skip
NOTHING = Latency(0.0, 0.0, 0.0, 0)
OVERVIEW = Overview(
    model="m",
    uptime_s=1.5,
    slos=(UP, FIRST),
    requests_per_s=2.0,
    failures_per_s=0.25,
    output_tokens_per_s=100.0,
    time_to_first_token=Latency(0.1, 0.2, 0.3, 9),
    time_per_output_token=Latency(0.01, 0.02, 0.03, 8),
    request_duration=NOTHING,
    num_inflight=5,
    num_queued=4,
    replicas=(ReplicaStatus("llm", "a:1", True, "grpc", {"kv": 0.5}),),
)


def test_it_arrives_as_it_left():
    sent = overview_to_proto(OVERVIEW).SerializeToString()
    assert overview_from_proto(pb.GetOverviewResponse.FromString(sent)) == OVERVIEW


def test_nothing_is_no_zero():
    """No event and none that was good are different things."""
    up, first = overview_to_proto(OVERVIEW).slos
    assert not any(up.HasField(name) for name in ("threshold_s", "attainment", "budget_left"))
    assert all(first.HasField(name) for name in ("threshold_s", "attainment", "budget_left"))


def test_it_is_json():
    found = json.loads(json.dumps(OVERVIEW.to_dict()))
    assert found["slos"][0]["attainment"] is None
    assert found["time_to_first_token"]["p95_s"] == pytest.approx(0.2)
    assert found["replicas"][0]["load"] == {"kv": 0.5}
