"""`make bench`: how much of the encoding hides behind prefill, through the real services.

One encoder and one LLM engine on one core each, 8-image requests, a random Qwen2.5-VL whose encode
and prefill take about equally long. Compared in one run, in turn:

    sequential   spec.llm.overlap: Disabled; prefill starts when every embedding is there
    overlapped   spec.llm.overlap: Enabled
    single       the whole model in one process with one thread, and with all cores

and the bound max(E, P) + one chunk, E and P as the sequential service measured them.
One process that uses all cores is the better use of equal cores for a *single* request; overlap is
to be compared with sequential disaggregation.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from benchmarks import machine, services
from benchmarks.checkpoints import Size, make_checkpoint

if TYPE_CHECKING:
    from redserve.v1 import types_pb2

RESULTS = Path(__file__).parent / "results"
NUM_IMAGES, SIDE, TEXT = 8, 448, "Describe all of these pictures, one after another."


@dataclass(slots=True)
class Samples:
    """Measurements of one mode."""

    ttft_s: list[float] = field(default_factory=list)
    tpot_s: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    prefill_s: list[float] = field(default_factory=list)
    overlap_ratio: list[float] = field(default_factory=list)
    num_busy: int = 0

    def add(self, ttft_s: float, tpot_s: float, timeline: types_pb2.Timeline | None = None) -> None:
        """Record one request."""
        self.ttft_s.append(ttft_s)
        self.tpot_s.append(tpot_s)
        if timeline is not None:
            self.encode_s.append(bar_seconds(timeline, "encode"))
            self.prefill_s.append(bar_seconds(timeline, "prefill"))
            self.overlap_ratio.append(timeline.overlap_ratio)

    def median(self, name: str) -> float:
        """Median of one column."""
        column: list[float] = getattr(self, name)
        return statistics.median(column)


def bar_seconds(timeline: types_pb2.Timeline, name: str) -> float:
    """Time that the named bars cover, seconds; joint batches count once."""
    spans = sorted({(b.start_unix_ns, b.end_unix_ns) for b in timeline.bars if b.name == name})
    covered, reach = 0, 0
    for start, end in spans:
        covered += max(0, end - max(start, reach))
        reach = max(reach, end)
    return covered / 1e9


def manifest(checkpoint: Path, *, overlap: bool) -> dict[str, Any]:
    """One encoder, one engine, one core each."""
    cpu = {"limits": {"cpu": "1"}}
    return {
        "apiVersion": "redserve.dev/v1alpha1",
        "kind": "RedService",
        "metadata": {"name": "overlapped" if overlap else "sequential"},
        "spec": {
            "model": {"uri": f"file://{checkpoint}", "dtype": "BFloat16"},
            "encoder": {"replicas": 1, "device": "CPU", "resources": cpu},
            "llm": {
                "replicas": 1,
                "device": "CPU",
                "resources": cpu,
                "prefixCache": "Disabled",
                "overlap": "Enabled" if overlap else "Disabled",
            },
        },
    }


def noise_pictures(folder: Path, seed: int) -> list[Path]:
    """Eight pictures that no cache has seen."""
    generator = random.Random(seed)
    paths = []
    for index in range(NUM_IMAGES):
        path = folder / f"{seed}-{index}.png"
        Image.frombytes("RGB", (SIDE, SIDE), generator.randbytes(SIDE * SIDE * 3)).save(
            path, compress_level=1
        )
        paths.append(path)
    return paths


class SingleProcess:
    """The whole model in a process of its own."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.single_process", str(checkpoint)]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the single process died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, pictures: list[Path], max_tokens: int) -> tuple[float, float]:
        """TTFT and TPOT of one request, seconds."""
        assert self._process.stdin is not None
        job = {"pictures": [str(p) for p in pictures], "text": TEXT, "max_tokens": max_tokens}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        return answer["ttft_s"], answer["tpot_s"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def measure(arguments: argparse.Namespace, folder: Path, checkpoint: Path) -> dict[str, Samples]:
    """All modes in turn, request by request, so that drift of the machine hits all alike."""
    cores = len(os.sched_getaffinity(0))
    samples = {name: Samples() for name in ("sequential", "overlapped", "single_1", "single_all")}
    with contextlib.ExitStack() as stack:
        clients = {}
        for name in ("sequential", "overlapped"):
            spec = manifest(checkpoint, overlap=name == "overlapped")
            address = stack.enter_context(services.running(spec, folder / name))
            clients[name] = services.Client(address)
            stack.callback(clients[name].close)
        singles = {
            "single_1": SingleProcess(checkpoint, 1),
            "single_all": SingleProcess(checkpoint, cores),
        }
        for single in singles.values():
            stack.callback(single.close)
        for round_number in range(arguments.rounds + 1):
            for index, name in enumerate(samples):
                pictures = noise_pictures(folder, 1000 * round_number + index)
                if round_number and not machine.wait_until_quiet(limit_s=arguments.quiet_limit_s):
                    print("warning: the machine is busy; ratios mean little", file=sys.stderr)
                    samples[name].num_busy += 1
                if name in clients:
                    data = [path.read_bytes() for path in pictures]
                    ttft, tpot, _, timeline = clients[name].ask(data, TEXT, arguments.max_tokens)
                else:
                    (ttft, tpot), timeline = singles[name].ask(pictures, arguments.max_tokens), None
                if round_number:  # the first round warms up
                    samples[name].add(ttft, tpot, timeline)
                print(
                    f"round {round_number} {name:11s}"
                    f" TTFT {ttft * 1e3:7.0f} ms  TPOT {tpot * 1e3:5.1f} ms",
                    flush=True,
                )
    return samples


def summarize(samples: dict[str, Samples], facts: dict[str, Any]) -> dict[str, Any]:
    """The figures that are kept."""
    encode, prefill = (
        samples["sequential"].median("encode_s"),
        samples["sequential"].median("prefill_s"),
    )
    bound = max(encode, prefill) + min(encode, prefill) / NUM_IMAGES
    sequential, overlapped = (
        samples["sequential"].median("ttft_s"),
        samples["overlapped"].median("ttft_s"),
    )
    return {
        "ttft_sequential_s": round(sequential, 4),
        "ttft_overlapped_s": round(overlapped, 4),
        "ttft_bound_s": round(bound, 4),
        "ttft_single_process_s": round(samples["single_all"].median("ttft_s"), 4),
        "ttft_single_process_one_thread_s": round(samples["single_1"].median("ttft_s"), 4),
        "overlapped_over_sequential": round(overlapped / sequential, 4),
        "overlapped_over_bound": round(overlapped / bound, 4),
        "encode_s": round(encode, 4),
        "prefill_s": round(prefill, 4),
        "overlap_ratio": round(samples["overlapped"].median("overlap_ratio"), 4),
        "tpot_s": {name: round(s.median("tpot_s"), 5) for name, s in samples.items()},
        "output_tokens_per_s": {
            name: round(1 / s.median("tpot_s"), 2) for name, s in samples.items()
        },
        "samples_on_a_busy_machine": sum(s.num_busy for s in samples.values()),
        "ttft_samples_s": {name: [round(x, 4) for x in s.ttft_s] for name, s in samples.items()},
        **facts,
    }


def table(figures: dict[str, Any]) -> str:
    """The same as a page for people."""
    rows = [
        ("sequential (whole request encoded first)", "ttft_sequential_s", "sequential"),
        ("**overlapped**", "ttft_overlapped_s", "overlapped"),
        ("bound max(E, P) + one chunk", "ttft_bound_s", None),
        ("whole model in one process, one thread", "ttft_single_process_one_thread_s", "single_1"),
        ("whole model in one process, all cores", "ttft_single_process_s", "single_all"),
    ]
    lines = [
        "# Overlap of encode and prefill",
        "Written by `make bench`. Medians; one core for the encoder, one for the engine. For a",
        "*single* request one process that uses all cores is the better use of two equal cores;",
        "compare overlapped with sequential.",
        "",
        "| mode | TTFT s | TPOT ms | output tokens/s |",
        "|---|---|---|---|",
    ]
    for title, key, mode in rows:
        tpot = f"{figures['tpot_s'][mode] * 1e3:.1f}" if mode else ""
        rate = f"{figures['output_tokens_per_s'][mode]:.1f}" if mode else ""
        lines.append(f"| {title} | {figures[key]:.3f} | {tpot} | {rate} |")
    lines += [
        "",
        f"Overlapped / sequential: **{figures['overlapped_over_sequential']:.3f}**;"
        f" overlapped / bound: **{figures['overlapped_over_bound']:.3f}**;"
        f" encode {figures['encode_s']:.3f} s, prefill {figures['prefill_s']:.3f} s,"
        f" {figures['overlap_ratio']:.0%} of the encoding hidden.",
        "",
        f"Model: {figures['model']}. {figures['rounds']} rounds, {NUM_IMAGES} images of"
        f" {SIDE}x{SIDE} per request, {figures['max_tokens']} output tokens, bfloat16."
        f" {figures['samples_on_a_busy_machine']} samples began on a busy machine.",
        f"Commit {figures['commit']}, {figures['hardware']}, {figures['date']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--quiet-limit-s", type=float, default=30.0)
    parser.add_argument("--dry-run", action="store_true", help="do not write benchmarks/results")
    arguments = parser.parse_args()
    commit = machine.commit()  # of what is measured, not of what the tree has become meanwhile
    with tempfile.TemporaryDirectory(prefix="redserve-bench-") as name:
        folder = Path(name)
        sizes = make_checkpoint(folder / "checkpoint", Size())
        samples = measure(arguments, folder, folder / "checkpoint")
    figures = summarize(
        samples,
        {
            "model": f"random Qwen2.5-VL, {sizes['vision_millions']:.0f}M vision,"
            f" {sizes['language_millions']:.0f}M language",
            "rounds": arguments.rounds,
            "max_tokens": arguments.max_tokens,
            "commit": commit,
            "hardware": machine.hardware(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
    )
    print(table(figures))
    if not arguments.dry_run:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "overlap.json").write_text(json.dumps(figures, indent=2) + "\n")
        (RESULTS / "overlap.md").write_text(table(figures))


if __name__ == "__main__":
    main()
