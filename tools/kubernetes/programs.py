"""Which programs there are, what they are built from and where they lie.

Versions are said once, in `modules/*/go.mod`; this file only reads them.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redserve.errors import ConfigError

MODULES: Final = Path(__file__).parent / "modules"
ASSETS_VARIABLE: Final = "KUBEBUILDER_ASSETS"
"""Folder of prebuilt programs, by the name that users of envtest know."""

BUILD_FLAGS: Final = ("-trimpath", "-buildvcs=false")


@dataclass(frozen=True, slots=True)
class Program:
    """One executable.

    Attributes:
        name: Of the executable.
        module: Folder of its go.mod below `modules/`.
        package: Go package of its main function.
    """

    name: str
    module: str
    package: str


@dataclass(frozen=True, slots=True)
class Module:
    """One go.mod.

    Attributes:
        name: Folder below `modules/`.
        main: Path of the Go module whose version is the programs' version.
    """

    name: str
    main: str

    @property
    def folder(self) -> Path:
        """Where go.mod and go.sum lie."""
        return MODULES / self.name

    @property
    def version(self) -> str:
        """Version of the programs, such as v1.36.3."""
        return self._match(rf"^\s*(?:require\s+)?{re.escape(self.main)} (v\S+)")

    @property
    def go_version(self) -> tuple[int, int]:
        """The oldest Go that builds it, such as (1, 26)."""
        major, minor = self._match(r"^go (\d+\.\d+)").split(".")
        return int(major), int(minor)

    @property
    def build_flags(self) -> tuple[str, ...]:
        """Flags for the compiler."""
        if self.name == "prometheus":
            # Without the clouds whose machines it could find: they are most of what is compiled.
            return (*BUILD_FLAGS, "-tags", "remove_all_sd,enable_kubernetes_sd")
        return BUILD_FLAGS

    @property
    def link_flags(self) -> str:
        """Flags for the linker: no debug tables, and the version where programs tell it."""
        stamps: dict[str, str] = {}
        if self.name == "k8s":
            # Clients judge a server by its version. Everything else is fixed, so that equal
            # sources make equal programs.
            major, minor = self.version.removeprefix("v").split(".")[:2]
            package = "k8s.io/component-base/version"
            stamps = {
                f"{package}.gitMajor": major,
                f"{package}.gitMinor": minor,
                f"{package}.gitVersion": self.version,
                f"{package}.gitCommit": "0" * 40,
                f"{package}.gitTreeState": "clean",
                f"{package}.buildDate": "1970-01-01T00:00:00Z",
            }
        elif self.name == "helm":
            stamps = {"helm.sh/helm/v4/internal/version.version": self.version}
        elif self.name == "prometheus":
            stamps = {"github.com/prometheus/common/version.Version": self.version}
        return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in stamps.items())])

    @property
    def cache(self) -> Path:
        """Where its programs are kept: another folder whenever anything about them changes."""
        digest = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            digest.update((self.folder / name).read_bytes())
        digest.update("\0".join((*self.build_flags, self.link_flags)).encode())
        return cache_folder() / f"{self.name}-{digest.hexdigest()[:16]}"

    def _match(self, pattern: str) -> str:
        found = re.search(pattern, (self.folder / "go.mod").read_text(), re.MULTILINE)
        if found is None:
            raise ConfigError(f"{self.folder / 'go.mod'} has no line like {pattern}")
        return found[1]


MODULE: Final = {
    module.name: module
    for module in (
        Module("k8s", "k8s.io/kubernetes"),
        Module("etcd", "go.etcd.io/etcd/server/v3"),
        Module("kwok", "sigs.k8s.io/kwok"),
        Module("helm", "helm.sh/helm/v4"),
        Module("prometheus", "github.com/prometheus/prometheus"),
        Module("monitoring", "sigs.k8s.io/controller-tools"),
    )
}
_KUBERNETES: Final = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
)
PROGRAMS: Final = {
    program.name: program
    for program in (
        *(Program(name, "k8s", f"k8s.io/kubernetes/cmd/{name}") for name in _KUBERNETES),
        Program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
        Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Program("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
        *(
            Program(name, "prometheus", f"github.com/prometheus/prometheus/cmd/{name}")
            for name in ("prometheus", "promtool")
        ),
        Program("controller-gen", "monitoring", "sigs.k8s.io/controller-tools/cmd/controller-gen"),
    )
}
CLUSTER: Final = (*_KUBERNETES[:4], "etcd", "helm", "controller-gen", "promtool")
"""What `make test-cluster` runs."""
NODE: Final = (*CLUSTER, "kubelet", "kube-proxy")
"""What `make test-node` runs."""
OBSERVABILITY: Final = ("prometheus", "promtool")
"""What `make test-observability` runs."""


def cache_folder() -> Path:
    """Where built programs are kept, outside of the tree."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "redserve/kubernetes"


def find(name: str) -> Path | None:
    """The program, from KUBEBUILDER_ASSETS or from the cache; None where neither has it."""
    assets = os.environ.get(ASSETS_VARIABLE)
    folders = [Path(assets)] if assets else []
    for folder in [*folders, MODULE[PROGRAMS[name].module].cache]:
        if os.access(folder / name, os.X_OK):
            return (folder / name).absolute()
    return None


def locate(name: str) -> Path:
    """The program.

    Raises:
        ConfigError: It has not been built.
    """
    found = find(name)
    if found is None:
        raise ConfigError(
            f"{name} is neither in {ASSETS_VARIABLE} nor built; "
            f"run: python -m tools.kubernetes.build {name}"
        )
    return found
