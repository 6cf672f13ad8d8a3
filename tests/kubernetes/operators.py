"""The operator as a process, and what tests ask of the cluster that it looks after."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from redserve.cluster import labels
from redserve.local.ports import LOOPBACK, free_ports
from redserve.spec.settings import OperatorSettings, base_environment
from redserve_operator.kube.kinds import ALWAYS_WATCHED, POD, REDSERVICE, Kind, kind_of
from tests.kubernetes.waiting import eventually
from tools.kubernetes import fake_nodes
from tools.kubernetes.async_api import ApiError, open_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tools.kubernetes.control_plane import ControlPlane

Manifest = dict[str, Any]
CHILD_KINDS = tuple(kind for kind in ALWAYS_WATCHED if kind not in (POD, REDSERVICE))


class OperatorProcess:
    """`python -m redserve_operator` as long as the context lasts.

    Args:
        kubeconfig: By which it reaches the API server; None takes a ServiceAccount.
        log: Where its lines go.
        environment: More variables of its environment.
        settings: Of `OperatorSettings`; short times unless they say otherwise.
    """

    def __init__(
        self,
        kubeconfig: Path | None,
        log: Path,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self._environment = dict(environment or {})
        self.port = next(free_ports())
        self.log = log
        self._settings = OperatorSettings.model_validate(
            {
                "identity": "op-1",
                "namespace": "default",
                "kubeconfig": str(kubeconfig or ""),
                "http_host": LOOPBACK,
                "http_port": self.port,
                "leader_election": False,
                "debounce_s": 0.1,
                # A machine that is busy with other things must not cost the Lease.
                "lease_duration_s": 30.0,
                "lease_renew_s": 0.5,
                **settings,
            }
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it; does not wait."""
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "redserve_operator"],
                env=base_environment({**self._settings.to_env(), **self._environment}),
                stdout=output,
                stderr=output,
            )
        return self

    def until_ready(self) -> Self:
        """Wait until it is ready; fails when it ends instead."""

        def ready() -> bool:
            assert self.is_running, f"the operator ended: {self.tail()}"
            return self.ask("/readyz")[0] == http.client.OK

        eventually(ready, timeout_s=60.0)
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def ask(self, path: str) -> tuple[int, str]:
        """Status and text of a probe; status 0 when nobody answers."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def figure(self, name: str, *marks: str) -> float:
        """Sum of a metric over the samples whose labels contain all marks."""
        total = 0.0
        for line in self.ask("/metrics")[1].splitlines():
            if line.startswith(f"redserve_operator_{name}") and all(mark in line for mark in marks):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text().splitlines()[-15:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def fake_kubelets(control_plane: ControlPlane, *, nodes: int, gpus: int = 8) -> Iterator[Kubelets]:
    """Fake GPU nodes, played in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-kubelets")
    thread.start()
    behaviour = fake_nodes.Behaviour(start_delay_s=0.05, stop_delay_s=0.05)
    played: list[fake_nodes.FakeNodes] = []
    started, stop = threading.Event(), asyncio.Event()

    async def play() -> None:
        async with (
            open_api(control_plane.kubeconfig) as api,
            fake_nodes.running(api, behaviour, nodes=nodes, gpus=gpus) as made,
        ):
            played.append(made)
            started.set()
            await stop.wait()
        # Connections that were closed end some turns of the loop later, and it has to turn then:
        # else they complain whenever the garbage collector comes by, be it in the midst of pytest.
        await asyncio.sleep(0.2)

    playing = asyncio.run_coroutine_threadsafe(play(), loop)
    try:
        while not started.wait(0.1):
            if playing.done():
                playing.result()
        yield Kubelets(behaviour, lambda: loop.call_soon_threadsafe(played[0].look_again))
    finally:
        loop.call_soon_threadsafe(stop.set)
        playing.result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Kubelets:
    """What fake nodes do with pods; `hold` keeps pods from getting ready."""

    def __init__(self, behaviour: fake_nodes.Behaviour, look_again: Callable[[], Any]) -> None:
        self._behaviour = behaviour
        self._look_again = look_again

    @contextmanager
    def hold(self, held: Callable[[Manifest], bool]) -> Iterator[None]:
        """Pods for which `held` is true do not become ready before the context ends."""
        before = self._behaviour.may_be_ready
        self._behaviour.may_be_ready = lambda pod: not held(pod) and before(pod)
        try:
            yield
        finally:
            self._behaviour.may_be_ready = before
            self._look_again()


class Cluster:
    """Questions and wishes of a user of one namespace."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self.control_plane = control_plane
        self.api = control_plane.api
        self.namespace = namespace

    def apply(self, manifest: Manifest) -> Manifest:
        """As `kubectl apply --server-side`."""
        path = kind_of(manifest["kind"]).path(self.namespace, manifest["metadata"]["name"])
        found: Manifest = self.api.patch(
            f"{path}?fieldManager=user&force=true", manifest, content_type=APPLY
        )
        return found

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object; None when there is none."""
        try:
            found: Manifest = self.api.get(kind_of(kind).path(self.namespace, name))
        except ApiError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise
        return found

    def patch(self, kind: str, name: str, patch: Any, subresource: str = "") -> Manifest:
        """A merge patch by somebody else."""
        path = kind_of(kind).path(self.namespace, name, subresource)
        found: Manifest = self.api.patch(f"{path}?fieldManager=somebody", patch)
        return found

    def delete(self, kind: str, name: str, propagation: str = "Background") -> None:
        """Delete an object."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        self.api.delete(kind_of(kind).path(self.namespace, name), options)

    def objects(self, kind: Kind, service: str) -> list[Manifest]:
        """All objects of a service."""
        selector = f"labelSelector={labels.SERVICE}%3D{service}"
        items: list[Manifest] = self.api.get(f"{kind.path(self.namespace)}?{selector}")["items"]
        return [{"kind": kind.name, **item} for item in items]

    def children(self, service: str) -> list[Manifest]:
        """All of a service but its pods."""
        return [one for kind in CHILD_KINDS for one in self.objects(kind, service)]

    def pods(self, service: str) -> list[Manifest]:
        """Its pods."""
        return self.objects(POD, service)

    def status(self, service: str) -> Manifest:
        """Status of a RedService; empty when there is none."""
        found = self.get("RedService", service) or {}
        return dict(found.get("status") or {})

    def condition(self, service: str, kind: str) -> Manifest:
        """A condition of it; empty when it is not set."""
        for condition in self.status(service).get("conditions", ()):
            if condition["type"] == kind:
                return dict(condition)
        return {}

    def until_condition(self, service: str, kind: str, **expected: str) -> Manifest:
        """Wait until a condition has these fields; returns it."""

        def found() -> Manifest | None:
            condition = self.condition(service, kind)
            fits = expected.items() <= condition.items()
            return condition if fits else None

        condition = eventually(found)
        assert condition is not None
        return condition

    def is_settled(self, service: str) -> bool:
        """Whether its newest generation is rolled out and serves alone, and nothing is amiss."""
        found = self.get("RedService", service)
        if found is None:
            return False
        generation = found["metadata"]["generation"]
        states = {c["type"]: c for c in (found.get("status") or {}).get("conditions", ())}
        return (
            bool(states)
            and all(c["observedGeneration"] == generation for c in states.values())
            and states["Accepted"]["status"] == "True"
            and states["Ready"]["status"] == "True"
            and states["Degraded"]["status"] == "False"
            and states["Progressing"]["reason"] == "RolloutComplete"
        )

    def until_settled(self, service: str, timeout_s: float = 60.0) -> Manifest:
        """Wait for that; returns the status."""
        eventually(lambda: self.is_settled(service), timeout_s=timeout_s)
        return self.status(service)

    def until_as(self, service: str, before: dict[str, Any], timeout_s: float = 60.0) -> None:
        """Wait until it looks as it did in an earlier `snapshot`; fails with what does not."""
        differs: dict[str, tuple[Any, Any]] = {}

        def is_as_before() -> bool:
            now = self.snapshot(service)
            pairs = {key: (before.get(key), now.get(key)) for key in before.keys() | now.keys()}
            differs.clear()
            differs.update({key: pair for key, pair in pairs.items() if pair[0] != pair[1]})
            return not differs

        try:
            eventually(is_as_before, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; before and now: {differs}") from None

    def events(self, service: str) -> list[str]:
        """Reasons of its events, in order."""
        found = self.api.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        told = [one for one in found if one["regarding"].get("name") == service]
        return [one["reason"] for one in sorted(told, key=lambda one: str(one["eventTime"]))]

    def snapshot(self, service: str) -> dict[str, Any]:
        """All of a service without what differs from run to run: names of namespace and revision,
        times, versions, addresses."""
        status = self.status(service)
        seen = {
            f"{one['kind']}/{one['metadata']['name']}": _lasting(one)
            for one in self.children(service)
        }
        seen["status"] = _without(status, _CHANGING)
        text = json.dumps(seen, sort_keys=True).replace(self.namespace, "NS")
        for revision in (status.get("updateRevision"), status.get("currentRevision")):
            text = text.replace(revision or "?", "REV")
        made: dict[str, Any] = json.loads(text)
        return made


APPLY = "application/apply-patch+yaml"
GARBAGE_S = 180.0
"""Takes 40 s where nothing else runs."""
_CHANGING = {
    "uid", "resourceVersion", "creationTimestamp", "managedFields", "generation",
    "lastTransitionTime", "lastUpdateTime", "observedGeneration", "clusterIP", "clusterIPs",
    labels.APPLIED_HASH, "healthCheckNodePort", "nodePort", "ipFamilies", "secrets",
}  # fmt: skip


def _lasting(manifest: Manifest) -> Any:
    kept = _without(manifest, _CHANGING)
    if manifest["kind"] not in ("RedPool", "Deployment"):
        kept.pop("status", None)
    elif manifest["kind"] == "Deployment":
        kept["status"] = {"readyReplicas": kept.get("status", {}).get("readyReplicas", 0)}
        # It counts changes of the template by others, healed or not.
        kept["metadata"]["annotations"].pop("deployment.kubernetes.io/revision", None)
    return kept


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, names) for k, v in value.items() if k not in names}
    if isinstance(value, list):
        return [_without(entry, names) for entry in value]
    return value


def service(name: str = "demo", **changes: Any) -> Manifest:
    """A RedService of three pools that needs no checkpoint; `changes` go into its spec."""
    spec: Manifest = {
        "model": {"uri": "file://demo-model"},
        "encoder": {"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}},
        "llm": {"replicas": 1, "resources": {"limits": {"nvidia.com/gpu": 1}}},
        "router": {"replicas": 1},
    }
    for pool, fields in changes.items():
        if isinstance(fields, dict):
            spec[pool] = {**spec.get(pool, {}), **fields}
        else:
            spec[pool] = fields
    return {
        "apiVersion": REDSERVICE.api_version,
        "kind": REDSERVICE.name,
        "metadata": {"name": name},
        "spec": spec,
    }


def until_garbage_is_collected(control_plane: ControlPlane) -> None:
    """Wait until the controllers know our kinds: they look for new ones every 30 s only."""
    cluster = Cluster(control_plane, "default")
    owner = cluster.apply(service("garbage", reconcile="Paused"))
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": "garbage",
        "uid": owner["metadata"]["uid"],
    }
    owned = {"metadata": {"name": "garbage", "ownerReferences": [reference]}}
    control_plane.api.post("/api/v1/namespaces/default/configmaps", owned)
    cluster.delete("RedService", "garbage")
    eventually(lambda: cluster.get("ConfigMap", "garbage") is None, timeout_s=GARBAGE_S)


def quiet(
    count: Callable[[], float],
    *,
    for_s: float,
    timeout_s: float = 30.0,
    is_settled: Callable[[], bool] = lambda: True,
) -> None:
    """Wait until it is settled and a count has not changed for a while; fails if it never rests."""
    deadline = time.monotonic() + timeout_s
    last, since = count(), time.monotonic()
    while time.monotonic() - since < for_s or not is_settled():
        assert time.monotonic() < deadline, "it does not come to rest"
        time.sleep(0.05)
        if (now := count()) != last:
            last, since = now, time.monotonic()
