from __future__ import annotations

import json
import os
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes.pods import (
    Client,
    Pod,
    container,
    first,
    images,
    is_ready,
    phase,
    terminated,
)
from tests.kubernetes.waiting import eventually
from tools.kubernetes.kubelet.node import NodeOptions
from tools.kubernetes.kubelet.process_kubelet import ProcessKubelet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

SLEEP = "import time; time.sleep(600)"
# Answers 200 on /well as long as the folder /state has no file of the path's name.
SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists("/state" + self.path) else 200)
        self.end_headers()
    def do_POST(self):
        open("/state" + self.path, "w").close()
        self.send_response(200)
        self.end_headers()
    def do_DELETE(self):
        os.unlink("/state" + self.path)
        self.send_response(200)
        self.end_headers()
print("serving", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
# Tells what a container finds around it.
TELLS_ALL = """
import json, os
from pathlib import Path
text = lambda path: Path(path).read_text()
def writes(path):
    try:
        (Path(path) / "new").write_text("x")
    except OSError as error:
        return error.strerror
    return "written"
print(json.dumps({
    "env": dict(os.environ),
    "map": sorted(os.listdir("/etc/settings")),
    "one": text("/etc/one/renamed"),
    "labels": text("/info/labels"),
    "model": text("/models/weights"),
    "namespace": text("/var/run/secrets/kubernetes.io/serviceaccount/namespace"),
    "writes": {p: writes(p) for p in ("/tmp", "/cache", "/etc/settings", "/models", "/usr", "/")},
}))
"""
STATE: dict[str, Any] = {"volumes": [{"name": "state", "emptyDir": {}}]}
IN_STATE: dict[str, Any] = {"volumeMounts": [{"name": "state", "mountPath": "/state"}]}


def field(path: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": path}}


def waiting(pod: Pod) -> dict[str, Any]:
    found: dict[str, Any] = first(pod).get("state", {}).get("waiting", {})
    return found


def http_probe(path: str, **more: Any) -> dict[str, Any]:
    action = {"path": path, "port": "http"}
    return {"httpGet": action, "periodSeconds": 1, "failureThreshold": 1, **more}


@pytest.fixture(scope="module")
def kubelet(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessKubelet]:
    folder = tmp_path_factory.mktemp("kubelet")
    models = folder / "models"
    models.mkdir()
    (models / "weights").write_text("42")
    options = NodeOptions(
        name="processes",
        capacity={"cpu": "8", "memory": "16Gi", "pods": "100", "nvidia.com/gpu": "2"},
        backoff_s=0.3,
    )
    with ProcessKubelet(control_plane, images(models), folder / "pods", options) as started:
        yield started
        pids = started.pids().values()
    assert not [pid for pid in pids if is_alive(pid)]
    control_plane.api.delete("/api/v1/nodes/processes")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def pods(
    kubelet: ProcessKubelet, control_plane: ControlPlane, make_namespace: Callable[..., str]
) -> Client:
    return Client(control_plane, make_namespace())


def test_a_job_ends_with_its_words(pods: Client, kubelet: ProcessKubelet) -> None:
    program = "open('/dev/termination-log', 'w').write('done'); print('said')"
    pods.create("job", container(program), restartPolicy="Never")
    pod = pods.wait("job", phase("Succeeded"))
    assert terminated(pod)["message"] == "done"
    assert terminated(pod)["reason"] == "Completed"
    assert pod["status"]["hostIP"]
    assert kubelet.log(pods.namespace, "job") == "said\n"
    pods.create("bad", container("import sys; sys.exit(3)"), restartPolicy="Never")
    assert terminated(pods.wait("bad", phase("Failed")))["exitCode"] == 3


def test_commands_and_arguments(pods: Client, kubelet: ProcessKubelet) -> None:
    both = container("", args=["$(GREETING)", "$$(GREETING)", "$(ABSENT)"])
    both["command"][-1] = "import sys, os; print(sys.argv[1:], os.getcwd())"
    both["env"] = [{"name": "GREETING", "value": "hello"}]
    pods.create("both", both, restartPolicy="Never")
    pods.create("entry", {"name": "main", "image": both["image"]}, restartPolicy="Never")
    pods.wait("both", phase("Succeeded"))
    pods.wait("entry", phase("Succeeded"))
    log = kubelet.log(pods.namespace, "both")
    assert log == "['hello', '$(GREETING)', '$(ABSENT)'] /usr\n"
    assert kubelet.log(pods.namespace, "entry") == "the entrypoint\n"


def variables() -> list[dict[str, Any]]:
    """One environment variable of every kind."""
    return [
        {"name": "POD_IP", "valueFrom": field("status.podIP")},
        {"name": "POD_NAME", "valueFrom": field("metadata.name")},
        {"name": "APP", "valueFrom": field("metadata.labels['app']")},
        {"name": "ADDRESS", "value": "$(POD_IP):50051"},
        {"name": "LISTEN", "value": "0.0.0.0:9090"},
        {"name": "X_B", "value": "mine"},
        {
            "name": "TOKEN",
            "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "token"}},
        },
        {
            "name": "ABSENT",
            "valueFrom": {"configMapKeyRef": {"name": "none", "key": "none", "optional": True}},
        },
        {
            "name": "MEMORY",
            "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
        },
    ]


def test_environment_and_volumes(pods: Client, kubelet: ProcessKubelet) -> None:
    pods.make("configmaps", {"metadata": {"name": "settings"}, "data": {"A": "1", "B": "2"}})
    pods.make("secrets", {"metadata": {"name": "hidden"}, "stringData": {"token": "s3cret"}})
    main = container(
        TELLS_ALL,
        envFrom=[{"configMapRef": {"name": "settings"}, "prefix": "X_"}],
        env=variables(),
        resources={"limits": {"memory": "1.5Gi"}},
        volumeMounts=[
            {"name": "settings", "mountPath": "/etc/settings"},
            {"name": "one", "mountPath": "/etc/one"},
            {"name": "info", "mountPath": "/info"},
            {"name": "cache", "mountPath": "/cache"},
        ],
        securityContext={"readOnlyRootFilesystem": True},
    )
    items = [{"key": "A", "path": "renamed"}]
    labels = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    pods.create(
        "all",
        main,
        restartPolicy="Never",
        volumes=[
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "one", "configMap": {"name": "settings", "items": items}},
            {"name": "info", "downwardAPI": {"items": labels}},
            {"name": "cache", "emptyDir": {}},
        ],
    )
    pod = pods.wait("all", lambda p: p["status"].get("phase") in ("Succeeded", "Failed"))
    told = json.loads(kubelet.log(pods.namespace, "all"))
    ip = pod["status"]["podIP"]
    expected = {
        "X_A": "1",
        "X_B": "mine",
        "POD_IP": ip,
        "POD_NAME": "all",
        "APP": "all",
        "ADDRESS": f"{ip}:50051",
        "LISTEN": f"{ip}:9090",
        "TOKEN": "s3cret",
        "MEMORY": "1536",
        "FROM_IMAGE": "yes",
        "HOSTNAME": "all",
    }
    assert {name: told["env"].get(name) for name in expected} == expected
    assert "ABSENT" not in told["env"]
    assert "KUBERNETES_SERVICE_HOST" in told["env"]
    assert told["map"] == ["A", "B"]
    assert told["one"] == "1"
    assert 'app="all"' in told["labels"]
    assert told["model"] == "42"
    assert told["namespace"] == pods.namespace
    closed = "Read-only file system"
    assert told["writes"] == {
        "/tmp": closed,
        "/cache": "written",
        "/etc/settings": closed,
        "/models": closed,
        "/usr": closed,
        "/": closed,
    }


def test_containers_without_a_closed_root_write_for_themselves_only(
    pods: Client, kubelet: ProcessKubelet
) -> None:
    program = """
for path in ("/tmp/x", "/x", "/usr/x"):
    try:
        open(path, "w").close()
        print("written")
    except OSError as error:
        print(error.strerror)
"""
    pods.create("open", container(program), restartPolicy="Never")
    pods.wait("open", phase("Succeeded"))
    written = kubelet.log(pods.namespace, "open").splitlines()
    assert written == ["written", "written", "Read-only file system"]
    assert not os.path.exists("/x")  # noqa: PTH110


def test_a_pod_speaks_to_the_api_server_as_its_account(
    pods: Client, kubelet: ProcessKubelet, control_plane: ControlPlane
) -> None:
    control_plane.kubectl(
        *("create", "rolebinding", "look", "--clusterrole=view", "-n", pods.namespace),
        f"--serviceaccount={pods.namespace}:default",
    )
    program = """
import json, os, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount"
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
namespace = open(f"{account}/namespace").read()
request = urllib.request.Request(f"https://{host}:{port}/api/v1/namespaces/{namespace}/pods")
request.add_header("Authorization", "Bearer " + open(f"{account}/token").read())
context = ssl.create_default_context(cafile=f"{account}/ca.crt")
with urllib.request.urlopen(request, context=context) as answer:
    print([item["metadata"]["name"] for item in json.load(answer)["items"]])
"""
    pods.create("asks", container(program), restartPolicy="OnFailure")
    pods.wait("asks", phase("Succeeded"))
    assert kubelet.log(pods.namespace, "asks").splitlines()[-1] == "['asks']"


def test_init_containers_run_in_order(pods: Client, kubelet: ProcessKubelet) -> None:
    add = "open('/state/order', 'a').write('{} ')"
    flaky = """
import os, sys
if not os.path.exists("/state/tried"):
    open("/state/tried", "w").close()
    sys.exit(1)
open("/state/order", "a").write("second ")
"""
    pods.create(
        "ordered",
        container("print(open('/state/order').read())", **IN_STATE),
        initContainers=[
            container(add.format("first"), name="first", **IN_STATE),
            container(flaky, name="second", **IN_STATE),
        ],
        restartPolicy="OnFailure",
        **STATE,
    )
    pod = pods.wait("ordered", phase("Succeeded"))
    assert kubelet.log(pods.namespace, "ordered") == "first second \n"
    assert [s["restartCount"] for s in pod["status"]["initContainerStatuses"]] == [0, 1]
    pods.create(
        "stuck",
        container("print('never')"),
        initContainers=[container("import sys; sys.exit(1)", name="first")],
        restartPolicy="Never",
    )
    pod = pods.wait("stuck", phase("Failed"))
    assert "waiting" in first(pod)["state"]


def test_what_is_missing_is_waited_for(pods: Client) -> None:
    needs = container("print('ok')", envFrom=[{"configMapRef": {"name": "late"}}])
    pods.create("needs", needs, restartPolicy="Never")
    pod = pods.wait("needs", lambda p: waiting(p).get("reason") == "CreateContainerConfigError")
    assert "configMap 'late' not found" in waiting(pod)["message"]
    pods.make("configmaps", {"metadata": {"name": "late"}, "data": {}})
    pods.wait("needs", phase("Succeeded"))
    pods.create("foreign", {"name": "main", "image": "nowhere/else:1"})
    pods.wait("foreign", lambda p: waiting(p).get("reason") == "ErrImagePull")
    pods.create("typo", {**container(""), "command": ["/no/such/program"]}, restartPolicy="Never")
    pod = pods.wait("typo", phase("Failed"))
    assert terminated(pod)["reason"] == "StartError"
    assert "No such file" in terminated(pod)["message"]


def call(pod: Pod, path: str, method: str) -> None:
    url = f"http://{pod['status']['podIP']}:8080{path}"
    urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5).close()


def test_probes_decide_readiness_and_restarts(pods: Client, kubelet: ProcessKubelet) -> None:
    server = container(
        SERVER.replace("0.0.0.0", "$(POD_IP)"),
        ports=[{"name": "http", "containerPort": 8080}],
        env=[{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        startupProbe=http_probe("/started", failureThreshold=20),
        readinessProbe=http_probe("/ready"),
        livenessProbe=http_probe("/alive"),
        **IN_STATE,
    )
    pods.create("server", server, terminationGracePeriodSeconds=1, **STATE)
    pod = pods.wait("server", is_ready)
    assert first(pod)["started"] is True
    call(pod, "/ready", "POST")
    pods.wait("server", lambda p: not is_ready(p))
    call(pod, "/ready", "DELETE")
    pods.wait("server", is_ready)
    call(pod, "/alive", "POST")
    pods.wait("server", lambda p: first(p)["restartCount"] >= 1)
    # The volume outlives the container, and with it what fails the probe.
    pods.wait("server", lambda p: first(p)["restartCount"] >= 2)
    assert {"Unhealthy", "Killing"} <= set(pods.events("server"))
    pods.delete("server", grace_s=0)
    pods.wait_gone("server")


GRPC_SERVER = """
import signal, sys, threading
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
server = grpc.server(futures.ThreadPoolExecutor(2))
servicer = health.HealthServicer()
servicer.set("readiness", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
server.add_insecure_port(sys.argv[1])
server.start()
ended = threading.Event()
def drain(*_):
    servicer.set("readiness", health_pb2.HealthCheckResponse.NOT_SERVING)
    threading.Timer(8, ended.set).start()
signal.signal(signal.SIGTERM, drain)
ended.wait()
print("drained", flush=True)
"""


def test_a_pod_that_drains_is_seen_to(pods: Client, kubelet: ProcessKubelet) -> None:
    probe = {"grpc": {"port": 50051, "service": "readiness"}, "periodSeconds": 1}
    main = container(GRPC_SERVER, args=["0.0.0.0:50051"])
    main |= {"startupProbe": probe, "readinessProbe": {**probe, "failureThreshold": 1}}
    main["lifecycle"] = {"preStop": {"sleep": {"seconds": 3}}}
    pods.create("grpc", main, terminationGracePeriodSeconds=30)
    pod = pods.wait("grpc", is_ready)
    pods.delete("grpc")
    leaving = pods.wait("grpc", lambda p: "deletionTimestamp" in p["metadata"])
    assert is_ready(leaving)  # preStop sleeps, and it serves
    pods.wait("grpc", lambda p: not is_ready(p))
    assert kubelet.pids()[pods.namespace, "grpc", "main"] == int(
        first(pod)["containerID"].removeprefix("process://")
    )
    pods.wait_gone("grpc")


def test_grace_periods_end(pods: Client, kubelet: ProcessKubelet) -> None:
    stubborn = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("no", open("/state/hook").read(), flush=True))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
while True:
    time.sleep(600)
"""
    hook = {"exec": {"command": ["sh", "-c", "echo hooked $FROM_IMAGE >>/state/hook"]}}
    pods.create(
        "stubborn",
        container(stubborn, lifecycle={"preStop": hook}, **IN_STATE),
        terminationGracePeriodSeconds=5,
        **STATE,
    )
    pods.wait("stubborn", phase("Running"))
    key = (pods.namespace, "stubborn", "main")
    eventually(lambda: kubelet.log(*key))
    child = int(kubelet.log(*key).split()[0])
    pid = kubelet.pids()[key]
    pods.delete("stubborn")
    eventually(lambda: "no hooked yes" in kubelet.log(*key))
    pods.wait_gone("stubborn")
    assert not is_alive(pid)
    eventually(lambda: not is_alive(child))


def test_a_killed_process_is_started_again(pods: Client, kubelet: ProcessKubelet) -> None:
    pods.create("phoenix", container(SLEEP))
    before = pods.wait("phoenix", is_ready)
    kubelet.kill(pods.namespace, "phoenix")
    after = pods.wait("phoenix", lambda p: is_ready(p) and first(p)["restartCount"] == 1)
    assert first(after)["lastState"]["terminated"]["exitCode"] == 137
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert first(after)["containerID"] != first(before)["containerID"]
    ready = [c for c in after["status"]["conditions"] if c["type"] == "Ready"]
    assert ready[0]["lastTransitionTime"] >= before["status"]["startTime"]
    pods.create("crash", container("import sys; sys.exit(7)"))
    pods.wait("crash", lambda p: waiting(p).get("reason") == "CrashLoopBackOff")
    pods.delete("crash")
    pods.wait_gone("crash")


def test_gpus_are_counted_by_the_scheduler(pods: Client) -> None:
    one = {"limits": {"nvidia.com/gpu": 1}}
    for name in ("a", "b", "c"):
        pods.create(name, container(SLEEP, resources=one))

    def ready() -> list[str]:
        return [name for name in ("a", "b", "c") if is_ready(pods.get(name) or {"status": {}})]

    eventually(lambda: len(ready()) == 2)
    waits = next(name for name in ("a", "b", "c") if name not in ready())
    pods.wait(waits, lambda p: "Insufficient nvidia.com/gpu" in str(p["status"]))
    pods.delete(ready()[0], grace_s=0)
    pods.wait(waits, is_ready)


def test_an_api_server_that_was_away_is_told_everything(
    pods: Client, control_plane: ControlPlane
) -> None:
    pods.create("steady", container(SLEEP))
    pods.create("short", container("import time; time.sleep(8)"), restartPolicy="Never")
    pods.wait("short", phase("Running"))
    pods.wait("steady", is_ready)
    control_plane.stop_api_server(kill=True)
    control_plane.start_api_server()
    pods.wait("short", phase("Succeeded"))
    steady = pods.wait("steady", is_ready)
    assert first(steady)["restartCount"] == 0
    pods.delete("steady", grace_s=1)
    pods.wait_gone("steady")
