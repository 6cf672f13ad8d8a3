"""Alerts about pools, transport and room, run by promtool.

Those about pools that are too small: test_pool_below.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from redserve.cluster import labels
from redserve.cluster.facts import PROMETHEUS_RULE as RULE
from redserve.cluster.probes import START_LIMIT_S
from redserve.cluster.scrape import cluster_scrape_config
from redserve.local.scrape import scrape_config
from redserve.observability.pool_alerts import START_LIMIT_MIN
from tests.cluster.golden import CASES as CLUSTER_CASES
from tests.cluster.golden import Case as ClusterCase
from tests.observability.cases import Case
from tests.observability.healthy import POOLS, SPEC, healthy, of, service, serving, steady
from tests.observability.promtool import (
    Scenario,
    check_config,
    check_file,
    check_rules,
    run_scenario,
)
from tests.observability.states import STATE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.observability, pytest.mark.timeout(300)]
GONE: Final = "_x60"
DOWN: Final = steady(0)
ENDED: Final = "1x9 0x50"


def info(process: str, transport: str) -> str:
    return of("redserve_transport_info", process, transport=transport)


def pool_bytes(process: str, state: str) -> str:
    return of("redserve_transport_pool_bytes", process, state=state)


def first_token(threshold_ms: int) -> dict[str, Any]:
    """A promise."""
    return {
        "name": f"ttft-{threshold_ms}",
        "indicator": "TimeToFirstToken",
        "thresholdMilliseconds": threshold_ms,
    }


SLOS: Final = SPEC["slos"]
BY_GRPC: Final = [info(process, "grpc") for process in POOLS if process != "router-0"]
ALL_RDMA: Final = {
    **dict.fromkeys(BY_GRPC, GONE),
    **{info(process, "rdma"): steady(1) for process in POOLS if process != "router-0"},
}
RDMA: Final = {"resourceName": "rdma/ib"}
BYTES_MISSING: Final = of("redserve_item_retries_total", why="content_missing")
FELL_BACK_PULLS: Final = of("redserve_transport_fallbacks_total", "llm-0")
RETURNED: Final = of("redserve_encoder_cache_returns_total", "encoder-0")
FOUND: Final = of("redserve_encoder_cache_hits_total", "encoder-0")
MISSED: Final = of("redserve_encoder_cache_misses_total", "encoder-0")
EVICTED: Final = of("redserve_encoder_cache_evictions_total", "encoder-0")
STARVED: Final = of("redserve_kv_starved_steps_total", "llm-0")
STEPS: Final = of("redserve_step_seconds_count", "llm-0")
ENCODE_OLDEST: Final = of("redserve_encode_queue_oldest_seconds", "encoder-0")
OLDEST: Final = of("redserve_queue_oldest_seconds")
NO_ENCODERS: Final = dict.fromkeys([serving("encoder", 0), serving("encoder", 1)], DOWN)
FELL_BACK: Final = "RedServeTransportFellBack"

CASES: Final = {
    "all is well": Case({}, {"5m": set(), "50m": set()}),
    "no encoder serves any more": Case(
        dict.fromkeys(NO_ENCODERS, "1x9 0x50"),
        {
            "9m": set(),
            "10m": set(),
            "11m": {"RedServePoolEmpty pool=encoder"},
            "50m": {
                "RedServePoolEmpty pool=encoder",
                "RedServeRouterWithoutReplica pool=router missing=encoder",
            },
        },
    ),
    "no encoder is known any more": Case(
        dict.fromkeys(NO_ENCODERS, "1x9 _x50"),
        {"9m": set(), "16m": {"RedServePoolEmpty pool=encoder"}},
    ),
    "a new service that loads for 20 min": Case(
        {
            **dict.fromkeys([*NO_ENCODERS, serving("llm", 0)], "0x20 1x40"),
            **{of("up", process): "0x20 1x40" for process in POOLS if process != "router-0"},
        },
        {"2m": set(), "15m": set(), "20m": set(), "30m": set(), "50m": set()},
    ),
    "a new service whose targets appear late": Case(
        dict.fromkeys(healthy(), "_x20 1x40"), {"15m": set(), "20m": set()}
    ),
    "a new service whose routers start last": Case(
        {
            **{one: "_x5 1x50" for one in healthy() if 'instance="router-0"' in one},
            **{of("up", process): "0x20 1x40" for process in POOLS if process != "router-0"},
        },
        {"2m": set(), "4m": set(), "15m": set(), "50m": set()},
    ),
    "a new service that never loads": Case(
        {
            **dict.fromkeys([serving("llm", 0)], GONE),
            of("up", "llm-0"): DOWN,
        },
        {
            "25m": set(),
            "32m": {
                "RedServePoolEmpty pool=llm",
                "RedServeRouterWithoutReplica pool=router missing=llm",
                "RedServeTargetDown pool=llm",
            },
        },
    ),
    "an engine that comes after the others": Case(
        {of("up", "llm-1"): "_x20 0x20 1x20"}, {"35m": set(), "50m": set()}
    ),
    "an engine that was there for a minute": Case(
        {of("up", "llm-1"): "_x20 1x1 0x40"},
        {
            "30m": set(),
            "34m": {"RedServeTargetDown pool=llm"},
            "50m": {"RedServeTargetDown pool=llm"},
        },
    ),
    "encoders come back": Case(
        dict.fromkeys(NO_ENCODERS, "1x9 0x9 1x40"),
        {"18m": {"RedServePoolEmpty pool=encoder"}, "21m": set()},
    ),
    "no engine serves": Case({serving("llm", 0): ENDED}, {"15m": {"RedServePoolEmpty pool=llm"}}),
    "nobody is wanted": Case(
        NO_ENCODERS, {"5m": set(), "50m": set()}, {"encoder": {"replicas": 0}}
    ),
    "no router answers": Case(
        {of("up", "router-0"): ENDED},
        {
            "15m": {"RedServePoolEmpty pool=router"},
            "25m": {"RedServePoolEmpty pool=router", "RedServeTargetDown pool=router"},
        },
    ),
    "no router is there": Case(
        {one: "1x9 _x50" for one in healthy() if 'instance="router-0"' in one},
        {"9m": set(), "16m": {"RedServePoolEmpty pool=router"}},
    ),
    "an encoder's metrics cannot be read": Case(
        {of("up", "encoder-1"): ENDED},
        {"15m": set(), "25m": {"RedServeTargetDown pool=encoder"}},
    ),
    "nothing is scraped": Case(
        dict.fromkeys(healthy(), GONE), {"25m": set(), "35m": {"RedServeTargetDown"}}
    ),
    "nothing is meant to run": Case(
        dict.fromkeys(healthy(), GONE), {"50m": set()}, {"reconcile": "Stopped"}
    ),
    "the API server is away": Case(
        {of("redserve_discovery_synced"): DOWN},
        {"5m": set(), "15m": {"RedServeDiscoveryStale pool=router"}},
    ),
    "RDMA that was asked for": Case(ALL_RDMA, {"50m": set()}, {"transport": {"rdma": RDMA}}),
    "RDMA that was asked for and is not there": Case(
        {**ALL_RDMA, info("llm-0", "rdma"): GONE, info("llm-0", "grpc"): steady(1)},
        {"5m": set(), "15m": {f"{FELL_BACK} pool=llm"}},
        {"transport": {"rdma": RDMA}},
    ),
    "RDMA for some": Case(
        {**ALL_RDMA, info("llm-0", "rdma"): GONE, info("llm-0", "grpc"): steady(1)},
        {"15m": {f"{FELL_BACK} pool=llm"}},
    ),
    "RDMA that does not reach a peer": Case(
        {**ALL_RDMA, FELL_BACK_PULLS: "0x9 0+40x50"},
        {"9m": set(), "15m": set(), "25m": {f"{FELL_BACK} pool=llm"}},
    ),
    "RDMA that was asked for and does not reach a peer": Case(
        {**ALL_RDMA, FELL_BACK_PULLS: "0x9 0+40x50"},
        {"15m": set(), "25m": {f"{FELL_BACK} pool=llm"}},
        {"transport": {"rdma": RDMA}},
    ),
    "RDMA that does not reach a peer of which little is asked": Case(
        {**ALL_RDMA, FELL_BACK_PULLS: "0x9 1x9 2x9 3x9 4x9 5x15"},
        {"25m": {f"{FELL_BACK} pool=llm"}, "50m": {f"{FELL_BACK} pool=llm"}},
    ),
    "RDMA reaches the peer again": Case(
        {**ALL_RDMA, FELL_BACK_PULLS: "0x4 0+40x15 600x40"},
        {"18m": {f"{FELL_BACK} pool=llm"}, "40m": set()},
    ),
    "RDMA that fails both ways": Case(
        {
            **ALL_RDMA,
            info("encoder-0", "rdma"): GONE,
            info("encoder-0", "grpc"): steady(1),
            FELL_BACK_PULLS: "0+40x60",
        },
        {"15m": {f"{FELL_BACK} pool=encoder", f"{FELL_BACK} pool=llm"}},
    ),
    "RDMA and nothing else": Case(
        ALL_RDMA, {"50m": set()}, {"transport": {"type": "RDMA", "rdma": RDMA}}
    ),
    "RDMA and something else": Case(
        {info("llm-0", "grpc"): steady(1), **dict.fromkeys(BY_GRPC[:2], GONE)},
        {"15m": {f"{FELL_BACK} pool=llm"}},
        {"transport": {"type": "RDMA", "rdma": RDMA}},
    ),
    "gRPC that was asked for": Case({}, {"50m": set()}, {"transport": {"type": "GRPC"}}),
    "transfers hang": Case(
        {pool_bytes("llm-0", "quarantined"): steady(100)},
        {"3m": set(), "8m": {"RedServeMemoryQuarantined pool=llm"}},
    ),
    "transfers hang in a little more than a twentieth of the room": Case(
        {pool_bytes("llm-0", "quarantined"): steady(52)},
        {"8m": {"RedServeMemoryQuarantined pool=llm"}},
    ),
    "transfers hang in a little less than a twentieth of the room": Case(
        {pool_bytes("llm-0", "quarantined"): steady(48)}, {"50m": set()}
    ),
    "a transfer hangs": Case({pool_bytes("llm-0", "quarantined"): steady(10)}, {"50m": set()}),
    "an encoder has leases on what it has evicted": Case(
        {pool_bytes("encoder-0", "quarantined"): steady(300)}, {"50m": set()}
    ),
    "an engine lacks KV blocks in most steps": Case(
        {STARVED: "0+600x60"}, {"9m": set(), "15m": {"RedServeKVCacheFull pool=llm"}}
    ),
    "an engine lacks KV blocks in some steps": Case({STARVED: "0+400x60"}, {"50m": set()}),
    "an engine lacked KV blocks for five minutes": Case(
        {STARVED: "0x9 0+1000x5 5000x40"}, {"20m": set(), "50m": set()}
    ),
    "an engine that has nothing to do": Case({STARVED: "500x60", STEPS: "1000x60"}, {"50m": set()}),
    "requests wait": Case({OLDEST: steady(30)}, {"1m": set(), "5m": {"RedServeQueueOld"}}),
    "requests wait a little": Case({OLDEST: steady(3)}, {"50m": set()}),
    "requests waited": Case({OLDEST: "0x5 30 0x50"}, {"6m": set(), "8m": set()}),
    "requests wait and nothing was promised": Case(
        {OLDEST: steady(7)}, {"50m": set()}, {"slos": []}
    ),
    "requests wait too long for the stricter of two promises": Case(
        {OLDEST: steady(7)}, {"5m": {"RedServeQueueOld"}}, {"slos": [first_token(4000), *SLOS]}
    ),
    "requests wait for more than half of the time that they may take": Case(
        {OLDEST: steady(7)},
        {"5m": {"RedServeQueueOld"}},
        {"slos": [], "router": {"requestTimeoutSeconds": 12}},
    ),
    "requests wait for less than half of the time that they may take": Case(
        {OLDEST: steady(5)},
        {"50m": set()},
        {"slos": [], "router": {"requestTimeoutSeconds": 12}},
    ),
    "images wait for an encoder": Case(
        {ENCODE_OLDEST: steady(30)},
        {"1m": set(), "5m": {"RedServeEncodeQueueOld pool=encoder"}},
    ),
    "images wait a little for an encoder": Case({ENCODE_OLDEST: steady(3)}, {"50m": set()}),
    "pictures in rotation do not fit the cache": Case(
        {FOUND: "0+23x60", MISSED: "0+34x60", RETURNED: "0+31x60", EVICTED: "0+32x60"},
        {"10m": set(), "30m": {"RedServeEncoderCacheThrash"}},
    ),
    "every twelfth picture had to make room": Case(
        {FOUND: "0+6x60", MISSED: "0+6x60", RETURNED: "0+1x60", EVICTED: "0+6x60"},
        {"30m": {"RedServeEncoderCacheThrash"}},
    ),
    "every fortieth picture had to make room": Case(
        {FOUND: "0+20x60", MISSED: "0+20x60", RETURNED: "0+1x60", EVICTED: "0+20x60"},
        {"30m": set()},
    ),
    "pictures that never come again make room for each other": Case(
        {MISSED: "0+20x60", EVICTED: "0+20x60"}, {"30m": set(), "50m": set()}
    ),
    "encoders lack bytes of pictures that routers believe there": Case(
        {
            BYTES_MISSING: "0+2x60",
            of("redserve_items_total", outcome="encoded"): "0+20x60",
            MISSED: "0+22x60",
            EVICTED: "0+20x60",
        },
        {"30m": set()},
    ),
    "an encoder was started anew": Case(
        {MISSED: "0+20x10 0+20x50", RETURNED: "0x60", EVICTED: "0+20x10 0x50"}, {"50m": set()}
    ),
    "the pictures fit since the cache was made larger": Case(
        {
            FOUND: "0+20x60",
            MISSED: "0+20x20 400x40",
            RETURNED: "0+20x20 400x40",
            EVICTED: "0+20x20 400x40",
        },
        {"19m": {"RedServeEncoderCacheThrash"}, "35m": set()},
    ),
    "a few pictures had to make room": Case(
        {
            FOUND: "0x60",
            MISSED: "0+1x60",
            RETURNED: "0x4 1x4 2x4 3x4 4x40",
            EVICTED: "0+1x60",
        },
        {"30m": set()},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_alert(tmp_path: Path, name: str) -> None:
    CASES[name].check(tmp_path)


def test_no_moment_of_a_long_outage_is_silent(tmp_path: Path) -> None:
    """Not even that an hour after which nobody remembers that the pool served."""
    series = healthy(150) | dict.fromkeys([serving("llm", 0)], "1x9 0x140")
    empty = "RedServePoolEmpty pool=llm"
    router = "RedServeRouterWithoutReplica pool=router missing=llm"
    later = {f"{minute}m": {empty, router} for minute in (50, *range(72, 150, 6))}
    verdict = run_scenario(tmp_path, service(), Scenario(series, {"11m": {empty}, **later}))
    assert verdict.ok, verdict.said


def test_a_start_may_last_as_long_as_a_cluster_lets_it() -> None:
    assert START_LIMIT_MIN * 60 == START_LIMIT_S


SPECS: Final[dict[str, dict[str, Any]]] = {
    "all promises": {},
    "no promises": {"slos": []},
    "stopped": {"reconcile": "Stopped"},
    "RDMA": {"transport": {"type": "RDMA", "rdma": RDMA}},
    "Auto with RDMA": {"transport": {"rdma": RDMA}},
    "GRPC": {"transport": {"type": "GRPC"}},
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("namespace", [None, "prod"])
def test_promtool_finds_nothing_to_say(tmp_path: Path, name: str, namespace: str | None) -> None:
    verdict = check_rules(tmp_path, service(**SPECS[name]), namespace)
    assert verdict.ok, verdict.said


@pytest.mark.parametrize("case", CLUSTER_CASES, ids=lambda case: case.name)
def test_promtool_takes_what_a_cluster_gets(tmp_path: Path, case: ClusterCase) -> None:
    """The file in a ConfigMap as it is, and a PrometheusRule's `spec`."""
    path = tmp_path / "x.rules.yaml"
    files = [
        text
        for one in case.objects()
        if labels.RULES in one["metadata"]["labels"]
        for text in one["data"].values()
    ]
    specs = [yaml.safe_dump(one["spec"]) for one in case.objects() if one["kind"] == RULE]
    assert len(files) + len(specs) == 1
    path.write_text("".join([*files, *specs]))
    verdict = check_file(path)
    assert verdict.ok, verdict.said


@pytest.mark.parametrize("namespaces", [[], ["team"]])
def test_the_scrape_configuration_of_a_cluster_is_one(
    tmp_path: Path, namespaces: list[str]
) -> None:
    (tmp_path / "redserve.yaml").write_text(yaml.safe_dump(cluster_scrape_config(namespaces)))
    path = tmp_path / "prometheus.yaml"
    path.write_text("scrape_config_files: [redserve.yaml]")
    verdict = check_config(path)
    assert verdict.ok, verdict.said


def test_the_scrape_configuration_is_one(tmp_path: Path) -> None:
    path = tmp_path / "prometheus.yaml"
    path.write_text(yaml.safe_dump(scrape_config(STATE)))
    verdict = check_config(path)
    assert verdict.ok, verdict.said
