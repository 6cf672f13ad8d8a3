"""The chart on a real API server: installed, upgraded, uninstalled, and what it allows.

No kubelet runs here, so pods are made and never start. The control plane is this module's own:
definitions belong to the whole cluster, and other tests need theirs. They stay from test to test,
as they do for users: one that has just changed is deleted within a second, or within minutes when
the API server, which empties it first, finds its storage not ready and tries again ever later.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.helm.chart import CHART, NAMESPACE, RELEASE, helm
from tests.kubernetes.waiting import eventually
from tests.spec.manifests import ROOT
from tools.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
SERVICES = "redservices.redserve.dev"
POOLS = "redpools.redserve.dev"
ELSEWHERE = "second-system"
LEASES = "leases.coordination.k8s.io"
CRDS = (SERVICES, POOLS)
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as started:
        for name in ("team-a", "team-b", ELSEWHERE):
            started.kubectl("create", "namespace", name)
        # Everything of the release must pass the strictest standard.
        started.kubectl("create", "namespace", NAMESPACE)
        label = "pod-security.kubernetes.io/enforce=restricted"
        started.kubectl("label", "namespace", NAMESPACE, label)
        yield started


class Release:
    """One release of the chart in a cluster."""

    def __init__(
        self, cluster: ControlPlane, name: str = RELEASE, namespace: str = NAMESPACE
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._namespace = namespace

    def try_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = ("--namespace", self._namespace, "--kubeconfig", str(self._cluster.kubeconfig))
        return helm(*arguments, *options)

    def run(self, *arguments: str) -> str:
        done = self.try_run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_install(self, *options: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
        return self.try_run("upgrade", "--install", self._name, str(chart), *options)

    def install(self, *options: str, chart: Path = CHART) -> None:
        done = self.try_install(*options, chart=chart)
        assert done.returncode == 0, done.stderr

    def uninstall(self) -> None:
        self.run("uninstall", self._name, "--ignore-not-found")


@pytest.fixture
def release(cluster: ControlPlane) -> Iterator[Release]:
    made = Release(cluster)
    yield made
    made.uninstall()
    give_back(cluster)


def give_back(cluster: ControlPlane) -> None:
    """Definitions that stay belong to the release that the tests install, and are empty."""
    for one in definitions(cluster):
        name = one["metadata"]["name"]
        if "deletionTimestamp" in one["metadata"]:
            continue
        release = (f"release-name={RELEASE}", f"release-namespace={NAMESPACE}")
        owner = (f"meta.helm.sh/{each}" for each in release)
        cluster.kubectl("annotate", "--overwrite", "crd", name, *owner)
        cluster.kubectl("delete", name, "--all", "--all-namespaces")


def can(cluster: ControlPlane, user: str, verb: str, resource: str, namespace: str = "") -> bool:
    """Whether a user may do it: in a namespace, or everywhere when none is named.

    Resources are written `kind.group/subresource`, group and subresource where there are any.
    """
    name, _, subresource = resource.partition("/")
    kind, _, group = name.partition(".")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": kind,
        "subresource": subresource,
        "namespace": namespace,
    }
    review = {"spec": {"user": user, "resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(cluster.api.post(path, review)["status"]["allowed"])


def definitions(cluster: ControlPlane) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions that are there, ours only."""
    found = json.loads(cluster.kubectl("get", "crd", "-o", "json"))["items"]
    return [one for one in found if one["metadata"]["name"] in CRDS]


def pods(cluster: ControlPlane) -> list[str]:
    selector = "app.kubernetes.io/component=operator"
    return cluster.kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "name").split()


def test_install(cluster: ControlPlane, release: Release) -> None:
    release.install()
    for name in CRDS:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
    cluster.kubectl("-n", "team-a", "apply", "-f", str(ROOT / "examples/redservice.yaml"))
    # The pod is made, so admission took it.
    eventually(lambda: bool(pods(cluster)))


def older_chart(folder: Path) -> Path:
    """The chart as it might have been: without the printer columns."""
    shutil.copytree(CHART, folder / "chart")
    for path in (folder / "chart/files/crds").glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())
        for version in definition["spec"]["versions"]:
            version.pop("additionalPrinterColumns")
        path.write_text(yaml.safe_dump(definition))
    return folder / "chart"


def test_upgrades_change_the_definitions(
    cluster: ControlPlane, release: Release, tmp_path: Path
) -> None:
    def columns() -> int:
        return sum(
            len(version.get("additionalPrinterColumns", []))
            for one in definitions(cluster)
            for version in one["spec"]["versions"]
        )

    release.install(chart=older_chart(tmp_path))
    before = columns()
    release.install()
    assert columns() > before


def test_definitions_and_services_outlive_the_release(
    cluster: ControlPlane, release: Release
) -> None:
    release.install()
    cluster.kubectl("-n", "team-a", "apply", "-f", str(ROOT / "examples/redservice.yaml"))
    release.uninstall()
    assert len(definitions(cluster)) == len(CRDS)
    assert cluster.kubectl("-n", "team-a", "get", "redservices", "-o", "name").strip()
    assert not cluster.kubectl("-n", NAMESPACE, "get", "deployments", "-o", "name").strip()
    # They are taken over again.
    release.install()


@pytest.fixture(scope="module")
def installed(cluster: ControlPlane) -> Iterator[Release]:
    """A release that serves the whole cluster, for tests that only ask."""
    made = Release(cluster)
    made.install()
    yield made
    made.uninstall()


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods/exec"),
        ("get", "pods/log"),
        ("delete", "pods"),
        ("get", "nodes"),
        ("patch", SERVICES),
        ("delete", SERVICES),
        ("create", "clusterroles.rbac.authorization.k8s.io"),
        ("bind", "roles.rbac.authorization.k8s.io"),
        ("escalate", "roles.rbac.authorization.k8s.io"),
    ],
)
def test_what_the_operator_may_not(
    cluster: ControlPlane, installed: Release, verb: str, resource: str
) -> None:
    assert not can(cluster, ACCOUNT, verb, resource)
    assert not can(cluster, ACCOUNT, verb, resource, "team-a")


def test_what_the_operator_may(cluster: ControlPlane, installed: Release) -> None:
    for resource in ("deployments.apps", "services", "configmaps", POOLS):
        for verb in ("list", "watch", "create", "patch", "delete"):
            assert can(cluster, ACCOUNT, verb, resource), (verb, resource)
    assert can(cluster, ACCOUNT, "patch", f"{SERVICES}/status")
    assert can(cluster, ACCOUNT, "create", LEASES, NAMESPACE)
    assert not can(cluster, ACCOUNT, "get", LEASES, "team-a")


def test_the_operator_grants_what_routers_need_and_nothing_else(
    cluster: ControlPlane, installed: Release
) -> None:
    def grant(group: str, resource: str) -> str:
        rule = {"apiGroups": [group], "resources": [resource], "verbs": ["get", "list", "watch"]}
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "granted", "namespace": "team-b"},
            "rules": [rule],
        }
        arguments = ("apply", "--server-side", "-f", "-", f"--as={ACCOUNT}")
        return cluster.kubectl(*arguments, input=json.dumps(role), check=False)

    assert "serverside-applied" in grant("discovery.k8s.io", "endpointslices")
    assert "serverside-applied" not in grant("", "secrets")


def test_people_get_rights_by_kubernetes_own_roles(
    cluster: ControlPlane, installed: Release
) -> None:
    for role in ("view", "edit", "admin"):
        arguments = ("-n", "team-b", "create", "rolebinding", role, f"--clusterrole={role}")
        cluster.kubectl(*arguments, f"--user={role}er")
    # A controller writes the rules of view, edit and admin.
    eventually(lambda: can(cluster, "viewer", "list", SERVICES, "team-b"))
    eventually(lambda: can(cluster, "editer", "create", SERVICES, "team-b"))
    eventually(lambda: can(cluster, "adminer", "delete", POOLS, "team-b"))
    assert not can(cluster, "viewer", "create", SERVICES, "team-b")
    assert can(cluster, "editer", "patch", f"{POOLS}/scale", "team-b")
    assert not can(cluster, "editer", "delete", POOLS, "team-b")
    assert not can(cluster, "editer", "patch", f"{SERVICES}/status", "team-b")


def test_namespaced_release(cluster: ControlPlane, release: Release) -> None:
    release.install("--set", "watchNamespaces={team-a}")
    for verb, resource in (("list", SERVICES), ("patch", "deployments.apps")):
        assert can(cluster, ACCOUNT, verb, resource, "team-a")
        assert not can(cluster, ACCOUNT, verb, resource, "team-b")
        assert not can(cluster, ACCOUNT, verb, resource)


SECOND = (
    "--set", "crds.enabled=false,rbac.aggregate=false,dashboards.enabled=false",
    "--set", "watchNamespaces={team-b}",
)  # fmt: skip
"""Options of a second operator, as docs/how-to/kubernetes.md has them."""


@pytest.mark.parametrize(
    ("name", "namespace"), [(RELEASE, ELSEWHERE), ("second", NAMESPACE), ("second", ELSEWHERE)]
)
def test_a_second_operator(
    cluster: ControlPlane, release: Release, name: str, namespace: str
) -> None:
    release.install("--set", "watchNamespaces={team-a}")
    second = Release(cluster, name, namespace)
    try:
        second.install(*SECOND)
        full_name = name if RELEASE in name else f"{name}-{RELEASE}"
        account = f"system:serviceaccount:{namespace}:{full_name}-operator"
        for whose, here, elsewhere in (
            (ACCOUNT, "team-a", "team-b"),
            (account, "team-b", "team-a"),
        ):
            assert can(cluster, whose, "patch", "deployments.apps", here)
            assert not can(cluster, whose, "patch", "deployments.apps", elsewhere)
        second.uninstall()
        assert can(cluster, ACCOUNT, "patch", "deployments.apps", "team-a")
        assert len(definitions(cluster)) == len(CRDS)
    finally:
        second.uninstall()


def test_another_release_takes_over_the_definitions_that_were_left(
    cluster: ControlPlane, release: Release
) -> None:
    release.install()
    release.uninstall()
    other = Release(cluster, "second", ELSEWHERE)
    try:
        assert "cannot be imported" in other.try_install().stderr
        other.install("--take-ownership")
        owners = {
            one["metadata"]["annotations"]["meta.helm.sh/release-namespace"]
            for one in definitions(cluster)
        }
        assert owners == {ELSEWHERE}
        other.install()
    finally:
        other.uninstall()


def test_definitions_go_with_the_release_when_told_so(
    cluster: ControlPlane, release: Release
) -> None:
    """The last test: when the API server has emptied them is its own affair."""
    release.install("--set", "crds.keep=false")
    release.run("uninstall", RELEASE)
    assert all("deletionTimestamp" in one["metadata"] for one in definitions(cluster))
