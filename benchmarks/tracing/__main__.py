"""`make bench-tracing`: time to first token without tracing, at 5 % and at 100 %, in turn.

    off        no tracing
    off again  another service without tracing: the noise
    5          5 % of the requests are traced
    100        all of them are
    left out   of one more service at 5 %: requests whose client says that they are not to be traced
    recorded   of the same service: requests whose client says that they are

Every service has a router, an encoder and an engine of its own. A client asks one service after the
other, in an order that chance changes each time, so what else the machine does hits all alike.
Services that are compared get equally many requests, or their queues would differ.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import machine, services
from benchmarks.tracing import figures
from benchmarks.tracing.cpu import cpu_us
from redserve.bench.pictures import PictureSize, draw_png

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
CHECKPOINT: Final = Path(__file__).resolve().parents[2] / "examples/demo-model"
SAMPLING: Final[dict[str, int | None]] = {"off": None, "again": None, "5": 5, "100": 100}
TITLES: Final = {"off": "off", "again": "off (noise)", "5": "**5 %**", "100": "100 %"} | {
    figures.LEFT_OUT: "left out by the client",
    figures.RECORDED: "recorded by the client's wish",
}
FLAGS: Final = {figures.LEFT_OUT: 0, figures.RECORDED: 1}
"""What a client says in the W3C context that it sends, to `WISHES`."""
WISHES: Final = "wishes"
SERVICES: Final = {**SAMPLING, WISHES: 5}
LIMIT_PERCENT: Final = 2.0
NUM_IMAGES: Final = 2
MAX_TOKENS: Final = 4
SIZE: Final = PictureSize(96, 96)
TEXT: Final = "what is in image 1?"


def main() -> None:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tracing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--per-round", type=int, default=12, help="requests per service")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4], help="at a time")
    parser.add_argument("--quiet-limit-s", type=float, default=5.0)
    parser.add_argument("--dry-run", action="store_true", help="do not write benchmarks/results")
    arguments = parser.parse_args()
    commit = machine.commit()
    with tempfile.TemporaryDirectory(prefix="redserve-bench-") as name:
        made = _measure(arguments, Path(name))
    made |= {
        "commit": commit,
        "hardware": machine.hardware(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rounds": arguments.rounds,
        "per_round": arguments.per_round,
        "images": NUM_IMAGES,
        "max_tokens": MAX_TOKENS,
    }
    page = figures.page_of(made, TITLES, LIMIT_PERCENT)
    print(page)
    if not arguments.dry_run:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "tracing.json").write_text(json.dumps(made, indent=2) + "\n")
        (RESULTS / "tracing.md").write_text(page)


def _measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    num_busy = 0
    by_clients: dict[str, Any] = {}
    with _receiver() as receiver:
        cpu = {
            "off": cpu_us("", 0),
            "not_recorded": cpu_us(receiver.endpoint, 0),
            "recorded": cpu_us(receiver.endpoint, 100),
        }
        with contextlib.ExitStack() as stack:
            clients = {}
            for mode, percent in SERVICES.items():
                manifest = _manifest(mode, percent, receiver.endpoint)
                address = stack.enter_context(services.running(manifest, folder / mode))
                clients[mode] = services.Client(address)
                stack.callback(clients[mode].close)
            for at_a_time in arguments.clients:
                rounds: figures.Rounds = {mode: [] for mode in (*SAMPLING, *FLAGS)}
                for number in range(arguments.rounds + 1):
                    num_busy += not machine.wait_until_quiet(limit_s=arguments.quiet_limit_s)
                    seed = f"{at_a_time}-{number}"
                    samples = _round(clients, seed, arguments.per_round, at_a_time)
                    if number:  # the first round warms up
                        for mode, seconds in samples.items():
                            rounds[mode].append(seconds)
                by_clients[str(at_a_time)] = figures.summarize(rounds)
                print(f"{at_a_time} at a time: measured", file=sys.stderr, flush=True)
        num_bytes = receiver.close()
    return {"clients": by_clients, "busy_rounds": num_busy, "otlp_bytes": num_bytes, "cpu_us": cpu}


def _round(
    clients: Mapping[str, services.Client], seed: str, number: int, at_a_time: int
) -> dict[str, list[float]]:
    """Times to first token of `number` requests per service; no cache has seen their pictures."""
    chance = random.Random(seed)
    turns = []
    for request in range(number):
        pictures = {
            mode: [draw_png(SIZE, f"{seed}-{request}-{mode}-{n}") for n in range(NUM_IMAGES)]
            for mode in (*SAMPLING, *FLAGS)
        }
        turns.append(chance.sample(list(pictures.items()), k=len(pictures)))

    def ask_all(turn: list[tuple[str, list[bytes]]]) -> dict[str, float]:
        return {mode: ask(mode, own) for mode, own in turn}

    def ask(mode: str, pictures: list[bytes]) -> float:
        if mode in SAMPLING:
            return clients[mode].ask(pictures, TEXT, MAX_TOKENS)[0]
        context = f"00-{chance.getrandbits(127) + 1:032x}-{1:016x}-{FLAGS[mode]:02x}"
        metadata = (("traceparent", context),)
        return clients[WISHES].ask(pictures, TEXT, MAX_TOKENS, metadata)[0]

    with ThreadPoolExecutor(at_a_time) as pool:
        asked = list(pool.map(ask_all, turns))
    return {mode: [one[mode] for one in asked] for mode in (*SAMPLING, *FLAGS)}


def _manifest(mode: str, percent: int | None, endpoint: str) -> dict[str, Any]:
    one_core = {"resources": {"limits": {"cpu": "1"}}, "device": "CPU", "replicas": 1}
    tracing = {"otlpEndpoint": endpoint, "samplingPercent": percent}
    return {
        "apiVersion": "redserve.dev/v1alpha1",
        "kind": "RedService",
        "metadata": {"name": f"tracing-{mode}"},
        "spec": {
            "model": {"uri": f"file://{CHECKPOINT}", "dtype": "Float32"},
            "encoder": {**one_core, "poolSize": "64Mi"},
            "llm": {**one_core, "kvCacheSize": "64Mi", "arenaSize": "16Mi", "minChunk": 4},
            "monitoring": {} if percent is None else {"tracing": tracing},
        },
    }


class _Receiver:
    """The receiver's process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tracing.receiver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"

    def close(self) -> int:
        """End it; returns the bytes that came."""
        out, _ = self._process.communicate(timeout=30)
        return int(out)

    def kill(self) -> None:
        """End it, whatever it does; harmless when it has ended."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _receiver() -> Iterator[_Receiver]:
    made = _Receiver()
    try:
        yield made
    finally:
        made.kill()


if __name__ == "__main__":
    main()
