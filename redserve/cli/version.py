"""`redserve version`."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from redserve import __version__

if TYPE_CHECKING:
    import argparse

    from redserve.cli.common import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser("version", help="print the version")
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Print the versions of redserve and Python."""
    print(f"redserve {__version__} (Python {platform.python_version()})")
    return 0
