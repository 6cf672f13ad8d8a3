"""Shares cores and GPUs among the compute processes of one machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.local.machine import Machine
    from redserve.spec.encoder import DeviceKind


@dataclass(frozen=True, slots=True)
class Need:
    """One compute process.

    Attributes:
        pool: "encoder" or "llm".
        device: What the manifest says.
        num_cores: Cores of `resources.limits.cpu`, or None.
    """

    pool: str
    device: DeviceKind
    num_cores: int | None


@dataclass(frozen=True, slots=True)
class Share:
    """What one process gets."""

    num_threads: int
    device: str


@dataclass(frozen=True, slots=True)
class Shares:
    """What every process gets, in the order of the needs, and what had to be cut."""

    shares: tuple[Share, ...]
    warnings: tuple[str, ...]


def share(needs: Sequence[Need], machine: Machine) -> Shares:
    """Give each process a device and threads.

    The threads of all processes together never exceed the cores (but each gets one): libgomp's
    threads spin at barriers, and a machine that is oversubscribed computes at a fraction of its
    speed.

    Raises:
        ConfigError: A process must have a GPU and there is none.
    """
    threads, warnings = _threads(needs, machine.num_cores)
    devices = _devices(needs, machine.num_gpus)
    return Shares(tuple(map(Share, threads, devices)), warnings)


def _threads(needs: Sequence[Need], num_cores: int) -> tuple[list[int], tuple[str, ...]]:
    if len(needs) > num_cores:
        return [1] * len(needs), (
            f"{len(needs)} compute processes share {num_cores} core(s): "
            "they will take turns; fewer replicas may be faster",
        )
    wishes = [need.num_cores for need in needs]
    if all(wish is None for wish in wishes):
        return _spread(needs, num_cores), ()
    left = num_cores - sum(wish or 0 for wish in wishes)
    open_needs = [need for need in needs if need.num_cores is None]
    spread = iter(_spread(open_needs, max(left, len(open_needs))))
    threads = [next(spread) if wish is None else max(wish, 1) for wish in wishes]
    if sum(threads) <= num_cores:
        return threads, ()
    asked = sum(threads)
    while sum(threads) > num_cores:
        threads[threads.index(max(threads))] -= 1
    return threads, (
        f"resources.limits.cpu and the other processes ask for {asked} threads, this machine has "
        f"{num_cores} core(s): the largest shares are cut",
    )


def _spread(needs: Sequence[Need], num_cores: int) -> list[int]:
    """Equal shares; what is left over goes to the LLM engines first: decoding is sequential."""
    if not needs:
        return []
    each, over = divmod(num_cores, len(needs))
    order = sorted(range(len(needs)), key=lambda index: needs[index].pool != "llm")
    extra = set(order[:over])
    return [each + (index in extra) for index in range(len(needs))]


def _devices(needs: Sequence[Need], num_gpus: int) -> list[str]:
    for need in needs:
        if need.device == "CUDA" and num_gpus == 0:
            raise ConfigError(
                "CUDA needs a GPU and this machine shows none; write Auto or CPU",
                field=f"spec.{need.pool}.device",
            )
    wants = [index for index, need in enumerate(needs) if need.device != "CPU" and num_gpus]
    # LLM engines choose first; encoders go where no engine is, as long as there is such a place.
    llms = [index for index in wants if needs[index].pool == "llm"]
    gpu = {index: position % num_gpus for position, index in enumerate(llms)}
    quiet = [number for number in range(num_gpus) if number not in gpu.values()]
    places = quiet or list(range(num_gpus))
    encoders = [index for index in wants if index not in gpu]
    gpu |= {index: places[position % len(places)] for position, index in enumerate(encoders)}
    return [f"cuda:{gpu[index]}" if index in gpu else "cpu" for index in range(len(needs))]
