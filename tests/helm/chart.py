"""Rendering the chart with the real helm."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import yaml

from tests.spec.manifests import ROOT
from tools.kubernetes.programs import locate

if TYPE_CHECKING:
    from collections.abc import Mapping

CHART = ROOT / "helm/redserve"
RELEASE = "redserve"
NAMESPACE = "redserve-system"
Manifest = dict[str, Any]


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run helm; its exit status is the caller's to judge."""
    return subprocess.run(
        [str(locate("helm")), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def try_template(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = RELEASE,
    kube_version: str = "1.36.0",
    apis: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """`helm template`, which may fail."""
    return helm(
        "template",
        release,
        str(CHART),
        "--namespace",
        NAMESPACE,
        "--kube-version",
        kube_version,
        *(f"--api-versions={api}" for api in apis),
        "--values=-",
        stdin=yaml.safe_dump(dict(values or {})),
    )


def template(values: Mapping[str, Any] | None = None, **options: Any) -> list[Manifest]:
    """All objects of a release."""
    done = try_template(values, **options)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def one_of(objects: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The only object of a kind, or the one with a name."""
    found = [
        one for one in objects if one["kind"] == kind and name in ("", one["metadata"]["name"])
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def kinds(objects: list[Manifest]) -> set[str]:
    """Which kinds there are."""
    return {one["kind"] for one in objects}
