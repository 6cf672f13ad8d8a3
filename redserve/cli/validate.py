"""`redserve validate`: read a manifest and say whether it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cli.common import add_manifest
from redserve.cluster.check import check, without_effect
from redserve.cluster.facts import OPTIONAL_KINDS, ClusterFacts
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
    """Check the manifest; what only one of the two ways to run it can do is no error."""
    service = load_manifest(arguments.file)
    spec = service.spec
    print(
        f"{arguments.file}: {service.name} is a valid RedService: {spec.model.uri}, "
        f"{spec.encoder.num_replicas} encoder(s), {spec.llm.num_replicas} LLM engine(s)"
    )
    for refusal in refusals(spec):
        print(f"not with 'redserve up': {refusal.field}: {refusal.why}")
    # A cluster that has everything: what yours lacks, `redserve render` and the operator tell.
    for unkept in check(service, ClusterFacts(kinds=frozenset(OPTIONAL_KINDS))):
        print(f"not in a cluster: {unkept.field}: {unkept.message}")
    for field in without_effect(service):
        print(f"without effect in a cluster: {field}")
    return 0
