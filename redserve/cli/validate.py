"""`redserve validate`: read a manifest and say whether it is right, and where it can be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from redserve.cli.common import add_manifest
from redserve.cluster.check import check, without_effect
from redserve.cluster.facts import OPTIONAL_KINDS, ClusterFacts
from redserve.errors import ConfigError
from redserve.local.checks import refusals
from redserve.spec.manifest import open_manifest
from redserve.spec.problems import field_steps

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from redserve.cli.common import Subparsers
    from redserve.spec.manifest import Manifest
    from redserve.spec.service import RedService


class _Unkept(NamedTuple):
    """What a place cannot keep."""

    field: str
    why: str


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "validate",
        help="check a manifest without starting anything",
        description="Check a manifest. It is an error when it can be kept neither by 'redserve up' "
        "nor by a cluster; with a flag below, when that place cannot keep it.",
    )
    add_manifest(parser)
    parser.add_argument(
        "--cluster", action="store_true", help="it is for a cluster: what the operator refuses"
    )
    parser.add_argument(
        "--local", action="store_true", help="it is for this machine: what 'redserve up' refuses"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the manifest; what only one of the two ways to run it can do is no error.

    Raises:
        ConfigError: It is no RedService, or the place that it is for cannot keep it.
    """
    manifest = open_manifest(arguments.file)
    service, spec = manifest.service, manifest.service.spec
    here = list(dict.fromkeys(_Unkept(one.field, one.why) for one in refusals(spec)))
    there = _cluster_refusals(service)
    # Without a flag both places are told, and one of them is enough.
    both = arguments.cluster == arguments.local
    if not (both or arguments.local):
        here = []
    if not (both or arguments.cluster):
        there = {}
    one_is_enough = not (arguments.cluster or arguments.local)
    wrong = bool(here and there) if one_is_enough else bool(here or there)
    if not wrong:
        print(
            f"{arguments.file}: {service.name} is a valid RedService: {spec.model.uri}, "
            f"{spec.encoder.num_replicas} encoder(s), {spec.llm.num_replicas} LLM engine(s)"
        )
    for line in _lines(manifest, here, there):
        print(line)
    if both or arguments.cluster:
        for field in without_effect(service):
            print(f"{_place(manifest, field)}: {field}: without effect in a cluster")
    if wrong:
        places = ["'redserve up'"] * bool(here) + ["a cluster"] * bool(there)
        raise ConfigError(f"{arguments.file}: cannot be kept by {' nor by '.join(places)}")
    return 0


def _cluster_refusals(service: RedService) -> dict[_Unkept, str]:
    """What a cluster cannot keep that has everything, with the reasons.

    What yours lacks, `redserve render` and the operator tell.
    """
    facts = ClusterFacts(kinds=frozenset(OPTIONAL_KINDS))
    return {_Unkept(one.field, one.message): one.reason for one in check(service, facts)}


def _lines(manifest: Manifest, here: list[_Unkept], there: dict[_Unkept, str]) -> Iterator[str]:
    """Each refusal once, in the order of the file."""
    found = {**dict.fromkeys(here, ""), **there}
    places = {one: manifest.source.place_of(field_steps(one.field)) for one in found}
    for one in sorted(found, key=lambda one: (places[one].line, places[one].column)):
        where = ["not with 'redserve up'"] if one in here else []
        where += [f"not in a cluster: {there[one]}"] if one in there else []
        yield f"{_place(manifest, one.field)}: {one.field}: {one.why} [{'; '.join(where)}]"


def _place(manifest: Manifest, field: str) -> str:
    place = manifest.source.place_of(field_steps(field))
    return f"{manifest.path}:{place.line}:{place.column}"
