from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from redserve_operator.store.pods import loader_facts, pod_facts
from tests.operator.samples import child, pod


def ready(status: str, at: str = "2026-11-28T03:01:00Z") -> dict[str, Any]:
    return {"type": "Ready", "status": status, "lastTransitionTime": at}


def main(restarts: int = 0, last: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    made = {"name": "main", "restartCount": restarts, "ready": False, "state": state}
    return made | ({"lastState": {"terminated": last}} if last else {})


def test_a_ready_pod() -> None:
    facts = pod_facts(
        pod(
            phase="Running",
            conditions=[ready("True")],
            containerStatuses=[main(3, running={}) | {"ready": True}],
        )
    )
    assert facts is not None
    assert (facts.pool, facts.revision, facts.ready) == ("llm", "aaaa1111", True)
    assert (facts.problem, facts.message, facts.num_restarts) == ("", "", 3)
    assert facts.changed == datetime(2026, 11, 28, 3, 1, tzinfo=UTC)
    assert facts.group == ""


def test_a_pod_that_is_being_deleted_drains_and_is_not_ready() -> None:
    manifest = pod(phase="Running", conditions=[ready("True")])
    manifest["metadata"]["deletionTimestamp"] = "2026-11-28T03:02:00Z"
    facts = pod_facts(manifest)
    assert facts is not None
    assert (facts.ready, facts.terminating, facts.problem) == (False, True, "")


def test_a_copy_that_nothing_controls_is_no_replica() -> None:
    manifest = pod(phase="Running", conditions=[ready("True")])
    del manifest["metadata"]["ownerReferences"]
    assert pod_facts(manifest) is None


def test_a_new_pod_changed_when_it_was_made() -> None:
    facts = pod_facts(pod(phase="Pending"))
    assert facts is not None
    assert facts.changed == datetime(2026, 11, 28, 3, 0, tzinfo=UTC)


CRASH = {"exitCode": 2, "reason": "Error", "message": "no GPU: driver too old\n"}
CRASHED = "main ended with exit code 2: no GPU: driver too old"
NO_ROOM = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


@pytest.mark.parametrize(
    ("status", "problem", "message"),
    [
        ({"containerStatuses": [main(waiting={"reason": "ContainerCreating"})]}, "", ""),
        ({"containerStatuses": [main(running={})]}, "", ""),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                             "message": NO_ROOM}]},
            "Unschedulable", NO_ROOM,
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                             "message": "gated"}]},
            "Failing", "gated",
        ),
        (
            {"containerStatuses": [main(waiting={"reason": "ImagePullBackOff", "message": "m"})]},
            "ImagePull", "m",
        ),
        (
            {"containerStatuses": [main(waiting={"reason": "ErrImageNeverPull"})]},
            "ImagePull", "ErrImageNeverPull",
        ),
        (
            {"containerStatuses": [main(1, CRASH, waiting={"reason": "CrashLoopBackOff"})]},
            "CrashLoop", CRASHED,
        ),
        (
            {"containerStatuses": [main(waiting={"reason": "CreateContainerConfigError",
                                                 "message": "secret hf not found"})]},
            "Failing", "secret hf not found",
        ),
        ({"containerStatuses": [main(terminated=CRASH)]}, "Failing", CRASHED),
        # Between two crashes it runs: the word does not come and go.
        ({"containerStatuses": [main(2, CRASH, running={})]}, "CrashLoop", CRASHED),
        ({"containerStatuses": [main(1, CRASH, running={})]}, "", ""),
        (
            {"initContainerStatuses": [{"name": "model", "restartCount": 4,
                                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                                        "lastState": {"terminated": CRASH}}],
             "containerStatuses": [main(waiting={"reason": "PodInitializing"})]},
            "CrashLoop", CRASHED.replace("main", "model"),
        ),
        (
            {"initContainerStatuses": [{"name": "model", "state": {"terminated": {"exitCode": 0}}}],
             "containerStatuses": [main(running={})]},
            "", "",
        ),
    ],
)  # fmt: skip
def test_why_a_pod_is_not_ready(status: dict[str, Any], problem: str, message: str) -> None:
    facts = pod_facts(pod(phase="Pending", **status))
    assert facts is not None
    assert (facts.problem, facts.message.strip()) == (problem, message)


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_pods_that_are_over_are_nobodys_replica(phase: str) -> None:
    assert pod_facts(pod(phase=phase, reason="Evicted")) is None


def test_foreign_pods_are_no_replicas() -> None:
    assert pod_facts(child("Pod", "x", status={})) is None
    strange = pod()
    strange["metadata"]["labels"]["redserve.dev/pool"] = "cache"
    assert pod_facts(strange) is None


def test_the_last_words_are_kept_at_their_end() -> None:
    words = {"exitCode": 1, "message": "x" * 5000 + "the reason"}
    facts = pod_facts(pod(containerStatuses=[main(terminated=words)]))
    assert facts is not None
    assert len(facts.message) < 1200
    assert facts.message.endswith("the reason")


def test_a_replica_of_several_pods_names_its_group() -> None:
    manifest = pod()
    manifest["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/group-key"] = "g1"
    facts = pod_facts(manifest)
    assert facts is not None
    assert facts.group == "g1"


def loader(**status: Any) -> dict[str, Any]:
    made = child("Pod", "demo-model-x", status=status)
    made["metadata"]["labels"]["batch.kubernetes.io/job-name"] = "demo-model-1"
    return made


def test_a_loader_reports_the_commit() -> None:
    ended = {"terminated": {"exitCode": 0, "message": " abc123\n"}}
    facts = loader_facts(loader(phase="Succeeded", containerStatuses=[{"state": ended}]))
    assert facts is not None
    assert (facts.job, facts.report, facts.problem) == ("demo-model-1", "abc123", "")


def test_a_loader_that_waits_or_fails_says_why() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    facts = loader_facts(
        loader(phase="Pending", containerStatuses=[{"name": "l", "state": waiting}])
    )
    assert facts is not None
    assert (facts.problem, facts.message) == ("ImagePull", "no such image")
    ended = {"terminated": {"exitCode": 1, "message": "401: token refused"}}
    facts = loader_facts(loader(phase="Failed", containerStatuses=[{"name": "l", "state": ended}]))
    assert facts is not None
    assert facts.report == "401: token refused"
    assert loader_facts(pod()) is None
