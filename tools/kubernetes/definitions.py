"""CustomResourceDefinitions of other projects, generated from their Go types."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import yaml

from redserve.errors import ConfigError
from tools.kubernetes.programs import MODULE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MODULE_NAME: Final = "monitoring"
_PACKAGE: Final = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
_FOLDER: Final = "definitions"


def generate(generator: Path, environment: Mapping[str, str]) -> None:
    """Put the Prometheus operator's definitions into the cache of their module.

    Args:
        generator: The program controller-gen.
        environment: For Go, by which it reads the types.

    Raises:
        ConfigError: It fails.
    """
    module = MODULE[MODULE_NAME]
    made, kept = generator.parent / _FOLDER, module.cache / _FOLDER
    command = [str(generator), "crd:crdVersions=v1,maxDescLen=0", f"paths={_PACKAGE}"]
    command.append(f"output:crd:dir={made}")
    done = subprocess.run(command, cwd=module.folder, env=environment, check=False)
    if done.returncode != 0:
        raise ConfigError("could not generate definitions; controller-gen says why above")
    shutil.rmtree(kept, ignore_errors=True)
    made.replace(kept)


def prometheus_operator(kind: str) -> dict[str, Any]:
    """The definition of a kind of the group monitoring.coreos.com.

    Raises:
        ConfigError: They have not been generated, or there is no such kind.
    """
    for path in (MODULE[MODULE_NAME].cache / _FOLDER).glob("*.yaml"):
        definition: dict[str, Any] = yaml.safe_load(path.read_text())
        if definition["spec"]["names"]["kind"] == kind:
            return definition
    raise ConfigError(
        f"there is no definition of {kind}; run: python -m tools.kubernetes.build controller-gen"
    )
