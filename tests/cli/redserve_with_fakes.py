"""The `redserve` command, with services that need no model."""

from __future__ import annotations

import sys

from redserve.cli.main import main
from redserve.spec import workloads

if __name__ == "__main__":
    workloads.MODULES = {  # type: ignore[misc]
        "router": "tests.cli.fake_router",
        "encoder": "tests.cli.fake_encoder",
        "llm": "tests.cli.fake_llm",
    }
    sys.exit(main())
