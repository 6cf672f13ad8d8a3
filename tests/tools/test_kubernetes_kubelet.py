"""What the process kubelet decides without processes; the rest is in tests/kubernetes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tools.kubernetes.kubelet import launch
from tools.kubernetes.kubelet.container import Backoff
from tools.kubernetes.kubelet.environment import (
    Missing,
    Place,
    Sources,
    environment,
    expand,
    references,
    resource_value,
)
from tools.kubernetes.kubelet.images import Image, Images
from tools.kubernetes.kubelet.probes import ProbePlan, Verdict
from tools.kubernetes.kubelet.status import (
    ContainerView,
    PodView,
    Running,
    State,
    Terminated,
    Waiting,
    phase,
    pod_status,
)

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = [(path, path) for path in {sys.prefix, sys.base_prefix}]
PLACE = Place("10.244.1.5", "10.244.1.1", {"cpu": "8", "memory": "16Gi"})
POD: dict[str, Any] = {
    "metadata": {"name": "pod", "namespace": "there", "uid": "u", "labels": {"a": "b"}},
    "spec": {"containers": []},
}
RUNNING = Running("2026-01-01T00:00:00Z", 7)


def ended(code: int) -> Terminated:
    return Terminated(code, "Error" if code else "Completed", "", "then", "now", 7)


def one(state: State, **fields: Any) -> ContainerView:
    return ContainerView("main", "image", state, **fields)


def view(*containers: ContainerView, inits: tuple[ContainerView, ...] = ()) -> PodView:
    initialized = all(c.state == ended(0) for c in inits)
    return PodView(inits, containers, initialized, "10.244.1.5", "10.244.1.1", "then", True)


def test_references_are_replaced_and_dollars_are_kept() -> None:
    values = {"A": "1", "B.C": "2"}
    assert expand("$(A)-$(B.C)-$(NONE)-$$(A)-$A", values) == "1-2-$(NONE)-$(A)-$A"


def test_variables_lie_above_sources_and_see_those_before_them() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}, "prefix": "S_"}],
        "env": [
            {"name": "X", "value": "$(Y)"},
            {"name": "Y", "value": "mine"},
            {"name": "Z", "value": "$(Y)$(S_T)"},
        ],
    }
    sources = Sources({"m": {"Y": "map"}}, {"s": {"T": "t"}})
    made = environment(container, POD, PLACE, sources, {"BASE": "b", "Y": "image"})
    assert made == {"BASE": "b", "X": "map", "Y": "mine", "Z": "minet", "S_T": "t"}
    assert references(container) == ({"m"}, {"s"})


@pytest.mark.parametrize(
    "source",
    [
        {"configMapKeyRef": {"name": "m", "key": "k"}},
        {"secretKeyRef": {"name": "s", "key": "k"}},
        {"fieldRef": {"fieldPath": "status.unheardOf"}},
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any]) -> None:
    container = {"env": [{"name": "A", "valueFrom": source}]}
    with pytest.raises(Missing):
        environment(container, POD, PLACE, Sources({"m": {}}, {"s": None}), {})


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.memory", "1Mi", "1536"),
        ("limits.cpu", "0", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.memory", "1Gi", "16"),
    ],
)
def test_resources_are_rounded_up(resource: str, divisor: str, value: str) -> None:
    container = {"resources": {"limits": {"memory": "1.5Gi", "cpu": "1500m"}}}
    assert resource_value({"resource": resource, "divisor": divisor}, container, PLACE) == value


def test_verdicts_need_answers_in_a_row() -> None:
    verdict = Verdict(ProbePlan(success_threshold=2, failure_threshold=3))
    said = [verdict.hear(well=bool(int(word))) for word in "1011000100"]
    assert said == [None, None, None, True, True, True, False, False, False, False]


def test_back_off_begins_at_once_and_doubles() -> None:
    backoff = Backoff(10.0)
    assert [backoff.wait_s(1.0) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.wait_s(601.0) == 0
    assert backoff.wait_s(1.0) == 10


def test_images_are_found_by_their_last_name() -> None:
    known = Images({"encoder": Image()})
    for reference in ("encoder", "h.example:5000/a/encoder:1.2", "a/encoder:1@sha256:00"):
        assert known.find(reference) is known.table["encoder"]
    assert known.find("encoder/other:1") is None


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        ("Pending", view(one(Waiting()))),
        ("Running", view(one(RUNNING))),
        ("Running", view(one(RUNNING), one(ended(1)))),
        ("Succeeded", view(one(ended(0)), one(ended(0)))),
        ("Failed", view(one(ended(0)), one(ended(1)))),
        ("Running", view(one(ended(1), will_restart=True))),
        ("Running", view(one(Waiting("CrashLoopBackOff"), last=ended(1)))),
        ("Pending", view(one(Waiting()), inits=(one(RUNNING),))),
        ("Pending", view(one(Waiting()), inits=(one(ended(1), will_restart=True),))),
        ("Failed", view(one(Waiting()), inits=(one(ended(1)),))),
        ("Running", view(one(RUNNING), inits=(one(ended(0)),))),
    ],
)
def test_phases(expected: str, shown: PodView) -> None:
    assert phase(shown) == expected


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in status["conditions"]}


def test_readiness_gates_hold_a_pod_back() -> None:
    gated = {**POD, "spec": {"readinessGates": [{"conditionType": "gate"}]}}
    ready = view(one(RUNNING, started=True, ready=True))
    status = pod_status(ready, gated, {}, "now")
    assert conditions(status)["ContainersReady"] == "True"
    assert conditions(status)["Ready"] == "False"
    opened = {**gated, "status": {"conditions": [{"type": "gate", "status": "True"}]}}
    assert conditions(pod_status(ready, opened, {}, "now"))["Ready"] == "True"


def test_times_move_with_changes_only() -> None:
    ready = view(one(RUNNING, started=True, ready=True))
    before = pod_status(ready, POD, {}, "first")
    written = {c["type"]: c for c in before["conditions"]}
    assert pod_status(ready, POD, written, "second") == before
    after = pod_status(view(one(RUNNING, started=True)), POD, written, "second")
    moved = {c["type"] for c in after["conditions"] if c["lastTransitionTime"] == "second"}
    assert moved == {"Ready", "ContainersReady"}


def test_a_container_sees_its_mounts_also_below_what_is_hidden(tmp_path: Path) -> None:
    seen, root = tmp_path / "seen", tmp_path / "root"
    seen.mkdir()
    root.mkdir()
    (seen / "file").write_text("here")
    (tmp_path / "hidden").write_text("not here")
    places = [str(seen), "/var/run/deep/er", "/opt/new/place"]
    program = "import os, sys; print([os.listdir(p) for p in sys.argv[1:]])"
    reading, writing = os.pipe()
    spec = {
        "root": str(root),
        "mounts": [
            {"source": source, "target": target, "read_only": True}
            for source, target in (*((str(seen), place) for place in places), *PYTHON)
        ],
        "read_only": True,
        "command": [sys.executable, "-c", program, *places, str(tmp_path)],
        "environment": {},
        "working_dir": "/",
        "outcome": writing,
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    # In a user namespace, as without root.
    enter = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--"]
    done = subprocess.run(
        [*enter, sys.executable, "-S", launch.__file__, str(os.getpid()), str(path)],
        pass_fds=(writing,),
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(writing)
    failure = os.read(reading, 1000).decode()
    os.close(reading)
    if "not permitted" in failure or "5.12" in failure or "unshare" in done.stderr:
        pytest.skip(f"no namespaces here: {failure}{done.stderr}")
    inside = ["seen"] if str(tmp_path).startswith("/tmp") else ["hidden", "root", "seen"]
    assert done.stdout.strip() == str([["file"], ["file"], ["file"], inside]), done.stderr
