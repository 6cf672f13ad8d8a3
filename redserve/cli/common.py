"""What several commands need."""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path
from typing import TypeAlias

from redserve.errors import ConfigError
from redserve.local.state import find_service
from redserve.spec.settings import runtime_directory

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` returns; argparse has no public name for it."""

DEFAULT_MANIFEST = Path("redservice.yaml")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Options that choose a router."""
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--address", metavar="HOST:PORT", type=host_port, help="gRPC address of a router"
    )
    target.add_argument(
        "--service",
        metavar="NAME",
        help="a service that runs on this machine, if there are several",
    )


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """The `-f` option."""
    parser.add_argument(
        "-f",
        "--file",
        type=Path,
        default=DEFAULT_MANIFEST,
        metavar="FILE",
        help=f"the manifest (default: {DEFAULT_MANIFEST} here)",
    )


def router_address(arguments: argparse.Namespace) -> str:
    """The gRPC address that `--address` names, or that of the chosen running service.

    Raises:
        ConfigError: No service runs here, or several and none is chosen.
    """
    if arguments.address is not None:
        return str(arguments.address)
    return find_service(runtime_directory(), arguments.service).grpc_address


def host_port(text: str) -> str:
    """A type for argparse."""
    if re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s/]+):[0-9]{1,5}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HOST:PORT")
    return text


def port_number(text: str) -> int:
    """A type for argparse."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write 0 to 65535")
    return int(text)


def show_what_can_be_shown() -> None:
    """A character that standard output's encoding lacks becomes "?" and ends no command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def read_image(path: Path) -> bytes:
    """The bytes of a picture that the command line names.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", field="--image") from error
