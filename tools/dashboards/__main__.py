"""`python -m tools.dashboards [--check]`: write the dashboards, or fail when one is stale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.dashboards.files import DASHBOARDS, stale_files, text_of

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when stale")
    arguments = parser.parse_args(argv)
    stale = stale_files(ROOT)
    for path in stale:
        shown = path.relative_to(ROOT)
        if arguments.check:
            print(f"{shown} is stale: run 'make dashboards' and commit", file=sys.stderr)
        elif path.name in DASHBOARDS:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text_of(path.name), encoding="utf-8")
            print(f"wrote {shown}")
        else:
            path.unlink()
            print(f"removed {shown}")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
