"""The `redserve` command, with encoders that take their time."""

from __future__ import annotations

import sys

from redserve.cli.main import main
from redserve.spec import workloads

if __name__ == "__main__":
    workloads.MODULES = {**workloads.MODULES, "encoder": "tests.page.slow_encoder"}  # type: ignore[misc]
    sys.exit(main())
