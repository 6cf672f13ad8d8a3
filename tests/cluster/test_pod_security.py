from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.golden import CASES, Case
from tests.cluster.pod_security import violations
from tests.cluster.pods import main_of, pod_of, pod_templates
from tests.spec.manifests import service

LOCKING = "complete"
RDMA = {"resourceName": "rdma/ib", "count": 2}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pods_pass_the_restricted_standard(case: Case) -> None:
    templates = list(pod_templates(case.objects()))
    assert len(templates) >= 3
    found = {what for template in templates for what in violations(template["spec"])}
    if case.name == LOCKING:
        assert found == {"main: adds IPC_LOCK", "main: runAsNonRoot", "main: runAsUser 0"}
    else:
        assert found == set()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volume v: hostPath"),
        ({"volumes": [{"name": "v", "nfs": {}}]}, "volume v: nfs"),
        ({"securityContext": {}}, "main: runAsNonRoot"),
        ({"containers": [{"name": "main"}]}, "main: does not drop ALL"),
        ({"initContainers": [{"name": "i"}]}, "i: allowPrivilegeEscalation"),
        (
            {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
            "pod: sysctl kernel.msgmax",
        ),
    ],
)
def test_the_checker_sees_what_is_wrong(change: dict[str, Any], what: str) -> None:
    assert what in violations({**pod_of(service(), "llm"), **change})


def test_ipc_lock_only_where_it_is_asked_for() -> None:
    locks = service(transport={"rdma": RDMA})
    trusts = service(transport={"rdma": {**RDMA, "memlock": "Runtime"}})
    for pool in ("encoder", "llm"):
        context = main_of(locks, pool)["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
        # To any other user the capability would be worth nothing.
        assert context["runAsUser"] == 0
        assert "add" not in main_of(trusts, pool)["securityContext"]["capabilities"]
        assert main_of(trusts, pool)["resources"]["limits"] == {"rdma/ib": "2"}
    assert "add" not in main_of(locks, "router")["securityContext"]["capabilities"]
    assert "resources" not in main_of(locks, "router")


@pytest.mark.parametrize(
    "pool",
    [
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        {"resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}},
        {"resources": {"claims": [{"name": "gpu"}]}},
        {"device": "CUDA"},
    ],
)
def test_gpu_pods_have_a_writable_root(pool: dict[str, Any]) -> None:
    made = service(llm=pool)
    assert main_of(made, "llm")["securityContext"]["readOnlyRootFilesystem"] is False
    for other in ("encoder", "router"):
        assert main_of(made, other)["securityContext"]["readOnlyRootFilesystem"] is True


def test_only_routers_have_a_token() -> None:
    tokens = {pool: pod_of(service(), pool) for pool in ("encoder", "llm", "router")}
    assert {pool: pod["automountServiceAccountToken"] for pool, pod in tokens.items()} == {
        "encoder": False, "llm": False, "router": True,
    }  # fmt: skip
    assert tokens["llm"]["serviceAccountName"] == "demo-worker"
    assert tokens["router"]["serviceAccountName"] == "demo-router"


def test_low_ports_need_no_capability() -> None:
    low = service(router={"http": {"port": 80}})
    assert pod_of(low, "router")["securityContext"]["sysctls"] == [
        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
    ]
    assert "sysctls" not in pod_of(service(), "router")["securityContext"]
