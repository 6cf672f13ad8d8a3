"""An API server, its controllers and its nodes in memory, as far as decisions can tell.

Server-side apply is done by leaf: every field has owners, a forced apply takes them, a field that
its last owner lets go vanishes (or falls back to a default). Lists are one value.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from redserve.cluster import labels
from redserve.cluster.facts import ClusterFacts, Context, Images
from redserve_operator.decide.objects import is_owned_by, key_of, text_of
from redserve_operator.decide.observed import (
    LoaderFacts,
    ObjectKey,
    Observed,
    PodFacts,
    Probed,
)
from redserve_operator.decide.plan import Apply, ApplyStatus, Create, Delete, Patch, Plan
from redserve_operator.decide.reconcile import reconcile
from redserve_operator.decide.upkeep import condition_of

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from redserve.cluster.facts import Manifest

START = datetime(2026, 1, 1, tzinfo=UTC)
COMMIT = "0cfaf48183f594c314753d30a4c4974bc75f3ccb"
IMAGES = Images("router:1", "encoder:1", "llm:1")
_IMMUTABLE = {"ConfigMap": ("data",), "Job": ("spec", "template"), "RoleBinding": ("roleRef",)}
_DEFAULTS: dict[str, dict[tuple[str, ...], Any]] = {
    "RedPool": {("spec", "replicas"): 1},
    "Deployment": {("spec", "replicas"): 1},
}


class RefusedByServer(Exception):
    """422: a field that cannot change."""


@dataclass(slots=True)
class Pod:
    name: str
    workload: ObjectKey
    pool: Any
    revision: str
    changed: datetime
    started: bool = False
    terminating: bool = False
    problem: Any = ""
    message: str = ""


@dataclass
class World:
    """Everything outside of decisions. `resource` is the RedService."""

    spec: dict[str, Any]
    now: datetime = START
    context: Context = field(
        default_factory=lambda: Context("elsewhere", IMAGES, ClusterFacts(minor=33))
    )
    resource: Manifest = field(default_factory=dict)
    objects: dict[ObjectKey, Manifest] = field(default_factory=dict)
    owners: dict[ObjectKey, dict[tuple[str, ...], set[str]]] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    loaders: dict[str, LoaderFacts] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    num_writes: dict[str, int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.resource = {
            "apiVersion": "redserve.dev/v1alpha1",
            "kind": "RedService",
            "metadata": {"name": "demo", "namespace": "team", "uid": "uid-demo", "generation": 1},
            "spec": copy.deepcopy(self.spec),
        }

    # The user.

    def edit(self, **spec: Any) -> None:
        changed = {**self.resource["spec"], **copy.deepcopy(spec)}
        if changed != self.resource["spec"]:
            self.resource["spec"] = changed
            self.resource["metadata"]["generation"] += 1

    # The operator.

    def observe(self, probed: Probed | None = None) -> Observed:
        return Observed(
            resource=copy.deepcopy(self.resource),
            children=copy.deepcopy(self.objects),
            pods=tuple(self._facts(pod) for pod in self.pods),
            probed=probed,
            loaders=tuple(self.loaders.values()),
        )

    def plan(self) -> Plan:
        plan = reconcile(self.context, self.observe(), self.now)
        if plan.probe:
            assert not plan.actions
            assert plan.status is None
            refused = {
                pod["metadata"]["labels"].get(labels.POOL, "model"): message
                for pod in plan.probe
                for image, message in self.refuses.items()
                if pod["spec"]["containers"][0]["image"] == image
            }
            probed = Probed(plan.probe_revision, refused)
            plan = reconcile(self.context, self.observe(probed), self.now)
            assert not plan.probe
        return plan

    def step(self, most_writes: int | None = None) -> bool:
        """One round of the operator, killed after some writes. Returns whether it wrote any."""
        plan = self.plan()
        for number, action in enumerate(plan.actions):
            if number == most_writes:
                return True
            self.act(action)
        if plan.status is not None and len(plan.actions) != most_writes:
            self.resource["status"] = copy.deepcopy(plan.status)
            self.events += [f"{event.reason}: {event.message}" for event in plan.events]
        return bool(plan.actions) or plan.status is not None

    def act(self, action: Any) -> None:
        if isinstance(action, Delete):
            have = self.objects.get(action.key)
            if have is not None and have["metadata"]["uid"] == action.uid:
                self._remove(action.key)
            return
        key = key_of(action.manifest)
        if isinstance(action, ApplyStatus):
            have = self.objects.get(key)
            assert have is not None
            have["status"] = {**have.get("status", {}), **copy.deepcopy(action.manifest["status"])}
            return
        if isinstance(action, Create) and key in self.objects:
            return
        assert isinstance(action, (Apply, Create, Patch))
        self.apply(copy.deepcopy(action.manifest), action.manager)

    # The API server.

    def apply(self, manifest: Manifest, manager: str) -> None:
        key = key_of(manifest)
        uid = manifest["metadata"].pop("uid", None)
        if key not in self.objects:
            if uid is not None:
                raise RefusedByServer(f"{key} is gone")
            self._make(key)
        have = self.objects[key]
        if uid is not None and have["metadata"]["uid"] != uid:
            raise RefusedByServer(f"{key} is another one")
        self.num_writes[f"{key.kind}/{key.name}"] = (
            self.num_writes.get(f"{key.kind}/{key.name}", 0) + 1
        )
        before = copy.deepcopy(have)
        fixed = _IMMUTABLE.get(key.kind, ())
        owners = self.owners[key]
        new = dict(_leaves(manifest))
        for path in [path for path, some in owners.items() if manager in some and path not in new]:
            owners[path].discard(manager)
            if not owners[path]:
                del owners[path]
                _unset(have, path)
        for path, value in new.items():
            if _get(have, path) != value:
                _set(have, path, value)
                owners[path] = {manager}
            else:
                owners.setdefault(path, set()).add(manager)
        for path, value in _DEFAULTS.get(key.kind, {}).items():
            if _get(have, path) is None:
                _set(have, path, value)
        if before.get("spec") or before.get("data"):
            is_open = key.kind == "ConfigMap" and not before.get("immutable")
            old = _get(before, fixed) if fixed and not is_open else None
            if old is not None and old != _get(have, fixed):
                self.objects[key] = before
                raise RefusedByServer(f"{key}: field is immutable")
        if before.get("spec") != have.get("spec"):
            have["metadata"]["generation"] = have["metadata"].get("generation", 0) + 1
        managers = owners.get(("spec", "replicas"), set())
        have["metadata"]["managedFields"] = [
            {"manager": one, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for one in sorted(managers)
        ]

    def _make(self, key: ObjectKey) -> None:
        self.objects[key] = {
            "metadata": {
                "uid": f"uid-{next(self.numbers)}",
                "creationTimestamp": text_of(self.now),
            }
        }
        self.owners[key] = {}

    def _remove(self, key: ObjectKey) -> None:
        del self.objects[key], self.owners[key]
        self.pods = [pod for pod in self.pods if pod.workload != key]
        self.loaders.pop(key.name, None)

    def act_deletion(self, key: ObjectKey) -> None:
        """What `kubectl delete` does."""
        self._remove(key)

    def scale(self, pool: str, replicas: int, manager: str = "hpa") -> None:
        """What an autoscaler does through /scale."""
        key = ObjectKey("RedPool", f"demo-{pool}")
        if key in self.objects:
            self._write(key, ("spec", "replicas"), replicas, manager)

    def foreign_edit(self, key: ObjectKey, path: tuple[str, ...], value: Any) -> None:
        if key in self.objects:
            self._write(key, path, value, "kubectl-edit")

    def _write(self, key: ObjectKey, path: tuple[str, ...], value: Any, manager: str) -> None:
        have = self.objects[key]
        if _get(have, path) == value:
            return
        _set(have, path, value)
        self.owners[key][path] = {manager}
        managers = self.owners[key].get(("spec", "replicas"), set())
        have["metadata"]["managedFields"] = [
            {"manager": one, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for one in sorted(managers)
        ]

    # Controllers and nodes; each call does at most one thing and returns whether it did.

    def workload_acts(self, rng: random.Random) -> bool:
        todo = []
        for key, have in self.objects.items():
            if key.kind == "Deployment":
                alive = [p for p in self.pods if p.workload == key and not p.terminating]
                if len(alive) != have["spec"]["replicas"]:
                    todo.append((key, have, alive))
        if not todo:
            return False
        key, have, alive = rng.choice(todo)
        if len(alive) < have["spec"]["replicas"]:
            marks = have["metadata"]["labels"]
            name = f"{key.name}-{next(self.numbers)}"
            pool, revision = marks[labels.POOL], marks[labels.REVISION]
            self.pods.append(Pod(name, key, pool, revision, self.now))
        else:
            min(alive, key=lambda p: (self._is_ready(p), rng.random())).terminating = True
        return True

    def pod_starts(self, rng: random.Random) -> bool:
        todo = [pod for pod in self.pods if not pod.started and not pod.terminating]
        todo = [pod for pod in todo if not pod.problem]
        if todo:
            pod = rng.choice(todo)
            pod.started, pod.changed = True, self.now
        return bool(todo)

    def pod_leaves(self, rng: random.Random) -> bool:
        todo = [pod for pod in self.pods if pod.terminating]
        if todo:
            self.pods.remove(rng.choice(todo))
        return bool(todo)

    def pod_fails(self, rng: random.Random) -> bool:
        todo = [pod for pod in self.pods if pod.started and not pod.terminating]
        if todo:
            pod = rng.choice(todo)
            pod.started, pod.changed = False, self.now
            pod.terminating = rng.random() < 0.5
        return bool(todo)

    def job_ends(self, _rng: random.Random) -> bool:
        for key, have in self.objects.items():
            if key.kind == "Job" and condition_of(have, "Complete") is None:
                have["status"] = {
                    "completionTime": text_of(self.now),
                    "conditions": [{"type": "Complete", "status": "True"}],
                }
                self.loaders[key.name] = LoaderFacts(key.name, report=COMMIT)
                return True
        return False

    def settle(self, rng: random.Random, num_rounds: int = 600) -> None:
        """Only good things happen, until nothing does."""
        for _ in range(num_rounds):
            self.now += timedelta(seconds=1)
            moved = self.step()
            for act in (self.workload_acts, self.pod_starts, self.pod_leaves, self.job_ends):
                moved |= act(rng)
            if not moved:
                return
        raise AssertionError(f"no end: {self.plan()}")

    def finish(self) -> None:
        """Bring the pods to where the workloads want them, at once."""
        import random

        self.settle(random.Random(0))

    # Looking.

    def workload(self, pool: str, revision: str) -> Manifest:
        return self.objects[ObjectKey("Deployment", f"demo-{pool}-{revision}")]

    def conditions(self) -> dict[str, tuple[str, str]]:
        found = self.resource["status"]["conditions"]
        return {one["type"]: (one["status"], one["reason"]) for one in found}

    def contents(self) -> dict[str, Any]:
        """All objects without what differs between two runs to the same end."""
        made = {}
        for key, have in sorted(self.objects.items()):
            one = copy.deepcopy(have)
            assert is_owned_by(one, "uid-demo"), key
            for name in ("uid", "creationTimestamp", "generation", "managedFields"):
                one["metadata"].pop(name, None)
            status = one.pop("status", {})
            if key.kind == "RedPool" and status.get("replicas"):
                one["status"] = {k: v for k, v in status.items() if k != "observedGeneration"}
            # A Job that has succeeded is left as it was.
            made[f"{key.kind}/{key.name}"] = one if key.kind != "Job" else {}
        return made

    def _is_ready(self, pod: Pod) -> bool:
        if not pod.started or pod.terminating:
            return False
        return pod.pool != "router" or all(
            any(
                one.started and not one.terminating
                for one in self.pods
                if (one.pool, one.revision) == (pool, pod.revision)
            )
            for pool in ("encoder", "llm")
            if pool == "llm" or not self._may_do_without_encoders()
        )

    def _may_do_without_encoders(self) -> bool:
        spec = self.resource["spec"]["encoder"]
        return bool(spec.get("scaling", {}).get("minReplicas", spec.get("replicas")) == 0)

    def _facts(self, pod: Pod) -> PodFacts:
        return PodFacts(
            name=pod.name,
            pool=pod.pool,
            revision=pod.revision,
            ready=self._is_ready(pod),
            terminating=pod.terminating,
            problem=pod.problem,
            message=pod.message,
            changed=pod.changed,
        )


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value and path[-1:] != ("selector",):  # an atomic map
        for key, entry in value.items():
            yield from _leaves(entry, (*path, key))
    else:
        yield path, value


def _get(manifest: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if not isinstance(manifest, dict):
            return None
        manifest = manifest.get(step)
    return manifest


def _set(manifest: Any, path: tuple[str, ...], value: Any) -> None:
    for step in path[:-1]:
        if not isinstance(manifest.get(step), dict):
            manifest[step] = {}
        manifest = manifest[step]
    manifest[path[-1]] = copy.deepcopy(value)


def _unset(manifest: Any, path: tuple[str, ...]) -> None:
    parent = _get(manifest, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
