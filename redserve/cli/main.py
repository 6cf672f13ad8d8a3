"""Entry point of the `redserve` command: parses, dispatches, turns errors into exit statuses.

0    done
1    it failed while running
2    the command line, a manifest or a setting is wrong
130  Ctrl-C
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from redserve import __version__
from redserve.cli import bench, chat, down, render, rules, status, top, trace, up, validate, version
from redserve.errors import (
    ConfigError,
    InvalidArgument,
    ModelNotFound,
    RedServeError,
    UnsupportedModel,
)
from redserve.telemetry.foreign import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130
_USAGE_ERRORS: Final = (ConfigError, InvalidArgument, ModelNotFound, UnsupportedModel)
_COMMANDS: Final = (up, status, top, chat, trace, bench, validate, render, rules, down, version)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        status_code: int = arguments.run(arguments)
        sys.stdout.flush()
    except RedServeError as error:
        print(f"redserve: {printable(str(error))}", file=sys.stderr)
        return WRONG if isinstance(error, _USAGE_ERRORS) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status_code


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="redserve",
        description="Serve large multimodal models with encoding and prefill overlapped.",
    )
    parser.add_argument("--version", action="version", version=f"redserve {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
