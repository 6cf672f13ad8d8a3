"""`make bench-transport`: latency and GB/s of every data path, in one run, in turn.

Each backend has a consumer process and a producer process of its own. Within a round every one
measures a burst of some 50 ms, so what else the machine does hits all alike; ratios are taken
within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.transport import plan, report
from benchmarks.transport.lines import Child

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
_REST_S: Final = 2.0


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transport",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=plan.SIZES, help="bytes")
    parser.add_argument("--backends", nargs="+", default=plan.BACKENDS, choices=plan.BACKENDS)
    parser.add_argument("--quiet-limit-s", type=float, default=10.0)
    parser.add_argument("--dry-run", action="store_true", help="do not write benchmarks/results")
    arguments = parser.parse_args()
    if not arguments.dry_run and tuple(arguments.backends) != plan.BACKENDS:
        parser.error("results are written for all backends only: use --dry-run")
    commit = machine.commit()
    figures = _measure(arguments)
    figures |= {
        "commit": commit,
        "hardware": machine.hardware(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rounds": arguments.rounds,
        "in_flight": plan.IN_FLIGHT,
        "working_set_bytes": plan.WORKING_SET,
        "ucx": {name: plan.environment(name) for name in (plan.NIXL_SHM, plan.NIXL_TCP)},
    }
    print(report.page_of(figures))
    if not arguments.dry_run:
        (RESULTS / "transport.json").write_text(json.dumps(figures, indent=2) + "\n")
        (RESULTS / "transport.md").write_text(report.page_of(figures))
    return 0


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    samples, num_busy = report.Samples(), 0
    with contextlib.ExitStack() as stack:
        consumers = {}
        for name in arguments.backends:
            consumer = Child("benchmarks.transport.consumer", name, env=plan.environment(name))
            stack.callback(consumer.close)
            consumers[name] = consumer
        idle = {
            name: consumer.ask("rest", seconds=_REST_S)["cpu_share"]
            for name, consumer in consumers.items()
        }
        for size in arguments.sizes:
            for consumer in consumers.values():
                consumer.ask("prepare", num_bytes=size)
            for _ in range(arguments.rounds):
                num_busy += not machine.wait_until_quiet(limit_s=arguments.quiet_limit_s)
                for name, consumer in consumers.items():
                    samples.add(name, size, consumer.ask("measure"))
            print(f"{report.size_name(size)} is measured", file=sys.stderr, flush=True)
    return {
        "results": samples.results(),
        "targets": report.targets(samples, arguments.sizes),
        "idle_cpu_share": {name: round(share, 4) for name, share in idle.items()},
        "busy_rounds": num_busy,
    }


if __name__ == "__main__":
    sys.exit(main())
