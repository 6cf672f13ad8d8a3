"""`redserve rules`: what Prometheus is told about a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from redserve.cli.common import add_manifest
from redserve.cluster.scrape import cluster_scrape_config
from redserve.errors import ConfigError
from redserve.local.scrape import LOCAL, RULE_FILES, scrape_config
from redserve.local.state import find_service
from redserve.observability import RUNBOOKS, rule_file
from redserve.spec.manifest import open_manifest
from redserve.spec.settings import runtime_directory

if TYPE_CHECKING:
    import argparse

    from redserve.cli.common import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "rules",
        help="print recording rules and alerts for Prometheus",
        description="Print the rule file of a manifest: what the promises (spec.slos) and the "
        "pools of a service mean to Prometheus. Nothing is sent anywhere. Series are found by the "
        "labels redservice, namespace, pool and revision.",
    )
    add_manifest(parser)
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        help="the label namespace of its series (default: the manifest's; without one, rules take "
        f"any, and --scrape-config says '{LOCAL}')",
    )
    parser.add_argument(
        "--runbooks-url",
        default=RUNBOOKS,
        metavar="URL",
        help="the folder of runbooks that alerts link to (default: %(default)s)",
    )
    parser.add_argument(
        "--scrape-config",
        action="store_true",
        help="instead, print a configuration of Prometheus for a service that 'redserve up' runs; "
        f"it reads rules from {RULE_FILES} in its folder",
    )
    parser.add_argument(
        "--kubernetes",
        action="store_true",
        help="with --scrape-config: for all services of a cluster (of --namespace, if that is "
        "given) that has no PodMonitors; a file for scrape_config_files of a Prometheus in it",
    )
    parser.add_argument(
        "--service",
        metavar="NAME",
        help="with --scrape-config: which one, if several run on this machine",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one of the two files.

    Raises:
        ConfigError: There is no such manifest, it is wrong, no such service runs here, or flags
            do not go together.
    """
    if arguments.kubernetes and not arguments.scrape_config:
        raise ConfigError("it goes with --scrape-config", field="--kubernetes")
    if arguments.service is not None and not arguments.scrape_config:
        raise ConfigError("it goes with --scrape-config; a manifest has one", field="--service")
    if arguments.kubernetes:
        if arguments.service is not None:
            raise ConfigError(
                "a configuration for a cluster is that of all its services; choose by --namespace",
                field="--service",
            )
        printed = cluster_scrape_config([arguments.namespace] if arguments.namespace else [])
    elif arguments.scrape_config:
        state = find_service(runtime_directory(), arguments.service)
        printed = scrape_config(state, arguments.namespace)
    else:
        service = open_manifest(arguments.file).service
        namespace = arguments.namespace or service.metadata.namespace
        printed = rule_file(service, namespace=namespace, runbooks=arguments.runbooks_url)
    print(yaml.safe_dump(printed, sort_keys=False, width=1000, allow_unicode=True), end="")
    return 0
