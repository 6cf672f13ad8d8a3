"""The pure parts of `benchmarks.transport`: how much is measured, medians, ratios, the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.transport import plan, report

if TYPE_CHECKING:
    from collections.abc import Mapping


def filled(sizes: tuple[int, ...], rates: Mapping[str, tuple[float, ...]]) -> report.Samples:
    """One sample per round and backend."""
    samples = report.Samples()
    for size in sizes:
        for index in range(len(rates[plan.MEMCPY])):
            for backend in plan.BACKENDS:
                measured = {"latency_s": [2e-6, 1e-6], "bytes_per_s": rates[backend][index]}
                if backend not in plan.RAW:
                    measured |= {"whole_latency_s": [5e-6], "whole_bytes_per_s": 1e9}
                samples.add(backend, size, measured)
    return samples


RATES = {
    plan.MEMCPY: (10e9, 20e9, 5e9),
    plan.SOCKET: (2e9, 4e9, 1e9),
    plan.IN_PROCESS: (9e9, 9e9, 9e9),
    plan.GRPC: (1e9, 1e9, 1e9),
    plan.NIXL_SHM: (7e9, 14e9, 3e9),
    plan.NIXL_TCP: (1.8e9, 3.6e9, 0.5e9),
}


def test_a_burst_goes_round_in_more_than_caches_hold():
    for size in plan.SIZES:
        assert 1 <= plan.num_slots(size) * size <= plan.WORKING_SET
    assert plan.num_slots(32 * plan.MIB) == 4


@pytest.mark.parametrize(
    ("num_done", "seconds", "count"),
    [(8, 0.0, plan.MAX_BURST), (8, 0.008, 50), (8, 10.0, plan.IN_FLIGHT)],
)
def test_a_burst_takes_about_as_long_as_it_should(num_done: int, seconds: float, count: int):
    assert plan.burst_count(num_done, seconds) == count


def test_ucx_is_told_what_a_service_tells_it():
    tcp, shm = plan.environment(plan.NIXL_TCP), plan.environment(plan.NIXL_SHM)
    assert tcp.pop("UCX_TLS").startswith("tcp")
    assert "cma" in shm.pop("UCX_TLS")
    assert tcp == shm
    assert plan.environment(plan.GRPC) == {}


def test_medians_of_rates_and_latencies():
    entries = filled((plan.MIB,), RATES).results()
    assert [e["backend"] for e in entries] == list(plan.BACKENDS)
    memcpy = entries[0]
    assert (memcpy["gb_per_s"], memcpy["best_gb_per_s"]) == (10.0, 20.0)
    assert (memcpy["latency_us"], memcpy["best_latency_us"]) == (1.5, 1.0)
    assert "whole_pull_gb_per_s" not in memcpy
    assert entries[-1]["whole_pull_latency_us"] == 5.0


def test_ratios_are_taken_within_a_round():
    """The noise of the machine hits all backends of a round alike."""
    samples = filled((8 * plan.MIB,), RATES)
    assert samples.ratio(plan.NIXL_SHM, plan.MEMCPY, 8 * plan.MIB) == pytest.approx(0.7)
    assert samples.ratio(plan.NIXL_TCP, plan.SOCKET, 8 * plan.MIB) == pytest.approx(0.9)


@pytest.mark.parametrize(("worst", "met"), [(1.6e9, True), (1.5e9, False)])
def test_tcp_is_held_to_its_promise_at_every_large_size(worst: float, met: bool):
    samples = filled((plan.SMALL, 8 * plan.MIB), RATES)
    for backend in plan.BACKENDS:
        rate = {plan.SOCKET: 2e9, plan.NIXL_TCP: worst}.get(backend, 1e9)
        samples.add(backend, plan.MIB, {"latency_s": [1e-6], "bytes_per_s": rate})
    found = report.targets(samples, (plan.SMALL, plan.MIB, 8 * plan.MIB))
    assert found["nixl_shm_met"]
    assert found["nixl_tcp_met"] is met


def test_the_page_has_every_backend_and_the_promises():
    samples = filled(plan.SIZES, RATES)
    page = report.page_of(
        {
            "results": samples.results(),
            "targets": report.targets(samples, plan.SIZES),
            "idle_cpu_share": {plan.GRPC: 0.001},
            "busy_rounds": 2,
            "rounds": 3,
            "commit": "abc1234",
            "hardware": "2 cores",
            "date": "2026-01-01",
        }
    )
    assert "| NIXL, TCP | 1.80 |" in page
    assert page.count("raw socket, blocking") == 2, "whole pulls are no matter of the limits"
    assert "**70%** of memcpy at 8 MiB" in page
    assert "abc1234" in page


@pytest.mark.parametrize(
    ("num_bytes", "name"),
    [(64, "64 B"), (65536, "64 KiB"), (1 << 20, "1 MiB"), (1500, "1500 B")],
)
def test_sizes_as_people_write_them(num_bytes: int, name: str):
    assert report.size_name(num_bytes) == name
