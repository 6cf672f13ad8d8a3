from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import ConfigError
from redserve.local.devices import Need, share
from redserve.local.machine import Machine


def needs(encoders: int, llms: int, device: str = "Auto", cpu: int | None = None) -> list[Need]:
    return [Need("encoder", device, cpu)] * encoders + [Need("llm", device, cpu)] * llms  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoders", "llms", "cores", "threads"),
    [
        (2, 1, 2, [1, 1, 1]),
        (2, 1, 3, [1, 1, 1]),
        (2, 1, 4, [1, 1, 2]),
        (2, 1, 16, [5, 5, 6]),
        (1, 1, 1, [1, 1]),
        (1, 2, 8, [2, 3, 3]),
    ],
)
def test_cores_are_spread(encoders: int, llms: int, cores: int, threads: list[int]) -> None:
    made = share(needs(encoders, llms), Machine(cores, 0))
    assert [one.num_threads for one in made.shares] == threads
    assert bool(made.warnings) == (encoders + llms > cores)


def test_limits_are_kept_and_the_others_share_the_rest() -> None:
    wants = [Need("encoder", "CPU", 2), Need("encoder", "CPU", None), Need("llm", "CPU", None)]
    made = share(wants, Machine(8, 0))
    assert [one.num_threads for one in made.shares] == [2, 3, 3]
    assert made.warnings == ()


def test_limits_above_the_machine_are_cut_with_a_word() -> None:
    wants = [Need("encoder", "CPU", 8), Need("llm", "CPU", 4), Need("llm", "CPU", None)]
    made = share(wants, Machine(8, 0))
    assert [one.num_threads for one in made.shares] == [3, 4, 1]
    assert "ask for 13 threads, this machine has 8 core(s)" in made.warnings[0]


@given(
    st.lists(
        st.builds(
            Need,
            st.sampled_from(["encoder", "llm"]),
            st.just("Auto"),
            st.none() | st.integers(1, 40),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 32),
    st.integers(0, 4),
)
def test_never_more_threads_than_cores(wants: list[Need], cores: int, gpus: int) -> None:
    made = share(wants, Machine(cores, gpus))
    threads = [one.num_threads for one in made.shares]
    assert len(threads) == len(wants)
    assert all(count >= 1 for count in threads)
    assert sum(threads) <= max(cores, len(wants))
    devices = {"cpu"} if gpus == 0 else {f"cuda:{number}" for number in range(gpus)}
    assert {one.device for one in made.shares} <= devices


@pytest.mark.parametrize(
    ("encoders", "llms", "gpus", "devices"),
    [
        (2, 1, 0, ["cpu", "cpu", "cpu"]),
        (2, 1, 1, ["cuda:0", "cuda:0", "cuda:0"]),
        (2, 1, 2, ["cuda:1", "cuda:1", "cuda:0"]),
        (2, 1, 3, ["cuda:1", "cuda:2", "cuda:0"]),
        (2, 2, 2, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        (1, 3, 2, ["cuda:0", "cuda:0", "cuda:1", "cuda:0"]),
    ],
)
def test_engines_have_gpus_of_their_own_if_possible(
    encoders: int, llms: int, gpus: int, devices: list[str]
) -> None:
    made = share(needs(encoders, llms), Machine(8, gpus))
    assert [one.device for one in made.shares] == devices


def test_cpu_stays_on_the_cpu() -> None:
    made = share([Need("encoder", "CPU", None), Need("llm", "CUDA", None)], Machine(8, 1))
    assert [one.device for one in made.shares] == ["cpu", "cuda:0"]


def test_cuda_without_a_gpu() -> None:
    with pytest.raises(ConfigError, match="write Auto or CPU") as caught:
        share([Need("encoder", "CPU", None), Need("llm", "CUDA", None)], Machine(8, 0))
    assert caught.value.field == "spec.llm.device"
