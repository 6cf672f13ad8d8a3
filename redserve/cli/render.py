"""`redserve render`: the Kubernetes objects of a manifest, without a cluster."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

import yaml

from redserve.cli.common import add_manifest, port_number
from redserve.cluster.check import OLDEST_MINOR, check
from redserve.cluster.documents import documents
from redserve.cluster.facts import (
    API_SERVER_PORTS,
    OPTIONAL_KINDS,
    ClusterFacts,
    Context,
    Images,
)
from redserve.errors import ConfigError
from redserve.spec.manifest import ManifestError, open_manifest
from redserve.spec.problems import Problem, field_steps
from redserve.spec.settings import OperatorSettings
from redserve.spec.yaml_scalars import KubernetesLoader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.cli.common import Subparsers
    from redserve.cluster.facts import Refusal
    from redserve.spec.manifest import Manifest
    from redserve.spec.service import RedService

_DEFAULT_NAMESPACE: Final = "default"


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "render",
        help="print the Kubernetes objects of a manifest",
        description="Print what the operator would create for a service, for review or to keep. "
        "Nothing is sent anywhere. Names have a revision in them, which depends on images, pull "
        "policy, pull secrets and the model's commit: it is the operator's if these are. The "
        "operator resolves a spec.model.revision that is no commit in the cluster, which changes "
        "the names; --model-revision does the same here.",
    )
    add_manifest(parser)
    _add_cluster(parser)
    _add_release(parser)
    parser.set_defaults(run=run)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    """What it is rendered for."""
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        help=f"where it would live (default: the manifest's, else {_DEFAULT_NAMESPACE!r})",
    )
    parser.add_argument(
        "--kubernetes-minor",
        type=int,
        default=OLDEST_MINOR,
        metavar="N",
        help=f"Kubernetes 1.N that it is for (default: {OLDEST_MINOR}, the oldest that is served)",
    )
    parser.add_argument(
        "--kinds",
        type=_kinds,
        default=frozenset(),
        metavar="KIND,...",
        help=f"kinds that the cluster serves besides its own: {', '.join(OPTIONAL_KINDS)}",
    )
    parser.add_argument(
        "--api-server-port",
        type=port_number,
        action="append",
        default=[],
        metavar="N",
        dest="api_server_ports",
        help="where the API server listens, if that is none of "
        f"{', '.join(map(str, API_SERVER_PORTS))}: the routers' NetworkPolicy opens it; may be "
        "repeated",
    )


def _add_release(parser: argparse.ArgumentParser) -> None:
    """What the operator was told when it was installed, and what it found out."""
    for pool in ("router", "encoder", "llm"):
        default = OperatorSettings.model_fields[f"{pool}_image"].default
        parser.add_argument(
            f"--{pool}-image",
            default=default,
            metavar="IMAGE",
            help=f"where the manifest names none (default: {default})",
        )
    parser.add_argument(
        "--model-revision",
        default="",
        metavar="COMMIT",
        help="commit that an unpinned spec.model.revision was resolved to: status.model.revision",
    )
    parser.add_argument(
        "--image-pull-policy",
        choices=("Always", "IfNotPresent", "Never"),
        default="",
        help="when nodes pull images, as the operator was told (default: Kubernetes' own choice)",
    )
    parser.add_argument(
        "--image-pull-secret",
        action="append",
        default=[],
        metavar="NAME",
        dest="image_pull_secrets",
        help="a Secret that images are pulled with, as the operator was told; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the objects as YAML documents; refuse what a cluster would refuse."""
    manifest = open_manifest(arguments.file)
    facts = ClusterFacts(arguments.kubernetes_minor, arguments.kinds)
    refusals = check(manifest.service, facts)
    if refusals:
        raise ManifestError(manifest.path, _problems(manifest, refusals))
    context = Context(
        namespace=_namespace(manifest.service, arguments.namespace),
        images=Images(
            arguments.router_image,
            arguments.encoder_image,
            arguments.llm_image,
            arguments.image_pull_policy,
            tuple(arguments.image_pull_secrets),
        ),
        facts=facts,
        model_revision=arguments.model_revision,
        api_server_ports=(*API_SERVER_PORTS, *arguments.api_server_ports),
    )
    print(as_yaml(documents(manifest.service, context)), end="")
    return 0


def as_yaml(objects: Iterable[dict[str, Any]]) -> str:
    """Objects as a stream of YAML documents that kubectl reads as they are."""
    return yaml.dump_all(
        objects, Dumper=_Dumper, sort_keys=False, explicit_start=True, allow_unicode=True, width=100
    )


class _Dumper(yaml.SafeDumper):
    """Quotes what Kubernetes would take for a number, too: a revision such as 1234e567."""

    def ignore_aliases(self, data: object) -> bool:
        """No anchors: people read it."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Lines as lines: a ConfigMap's file is to be read, too."""
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
for _first in {*yaml.SafeDumper.yaml_implicit_resolvers, *KubernetesLoader.yaml_implicit_resolvers}:
    for _resolvers in (yaml.SafeDumper, KubernetesLoader):
        for _tag, _pattern in _resolvers.yaml_implicit_resolvers.get(_first, []):
            _Dumper.add_implicit_resolver(_tag, _pattern, [_first])


def _problems(manifest: Manifest, refusals: Iterable[Refusal]) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            manifest.source.place_of(field_steps(refusal.field)), refusal.field, refusal.message
        )
        for refusal in refusals
    )


def _namespace(service: RedService, chosen: str | None) -> str:
    own = service.metadata.namespace
    if chosen and own and chosen != own:
        raise ConfigError(
            f"the manifest says {own!r}; name the same one or none", field="--namespace"
        )
    return chosen or own or _DEFAULT_NAMESPACE


def _kinds(text: str) -> frozenset[str]:
    """A type for argparse."""
    kinds = frozenset(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted(kinds - OPTIONAL_KINDS.keys())
    if unknown:
        known = ", ".join(OPTIONAL_KINDS)
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} makes no difference; there are {known}")
    return kinds
