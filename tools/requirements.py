"""`python tools/requirements.py EXTRA...`: what pyproject.toml asks for, one requirement a line.

Dockerfiles install it before the code, so that a layer of gigabytes changes only when
pyproject.toml or constraints.txt do. Standard library only: nothing is installed yet when it runs.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def requirements(pyproject: str, extras: Sequence[str]) -> list[str]:
    """Dependencies of the project with these extras, sorted.

    Raises:
        KeyError: There is no such extra.
    """
    project = tomllib.loads(pyproject)["project"]
    optional = project["optional-dependencies"]
    return sorted({*project["dependencies"], *(one for extra in extras for one in optional[extra])})


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml").read_text("utf-8"), sys.argv[1:])))
