"""`python -m tools.docs [--check]`: write the generated pages, or fail when one is stale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.docs.pages import PAGES, stale_pages

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when stale")
    arguments = parser.parse_args(argv)
    stale = stale_pages(ROOT)
    if arguments.check:
        for path in stale:
            print(f"{path} is stale: run 'make docs' and commit", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        target = ROOT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(PAGES[path](), encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
