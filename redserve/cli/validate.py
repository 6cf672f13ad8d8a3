"""`redserve validate`: read a manifest and say whether it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cli.common import add_manifest
from redserve.local.checks import refusals
from redserve.spec.manifest import load_manifest

if TYPE_CHECKING:
    import argparse

    from redserve.cli.common import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser("validate", help="check a manifest without starting anything")
    add_manifest(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the manifest; what only a cluster can do is told, and is no error."""
    service = load_manifest(arguments.file)
    spec = service.spec
    print(
        f"{arguments.file}: {service.name} is a valid RedService: {spec.model.uri}, "
        f"{spec.encoder.num_replicas} encoder(s), {spec.llm.num_replicas} LLM engine(s)"
    )
    for refusal in refusals(spec):
        print(f"not with 'redserve up': {refusal.field}: {refusal.why}")
    return 0
