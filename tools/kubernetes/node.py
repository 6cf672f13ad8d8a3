"""One real node: kubelet, containerd, runc and a CNI bridge, beside a control plane.

Runs inside of `node_space` only; `node_cluster` starts nodes together.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from redserve.errors import Unavailable
from redserve.local.ports import free_ports
from tools.kubernetes.node_images import SANDBOX
from tools.kubernetes.node_space import CNI_PLUGINS, NODE_ADDRESSES, cgroup, cgroup_folders
from tools.kubernetes.processes import BackgroundProcess
from tools.kubernetes.programs import locate

if TYPE_CHECKING:
    from pathlib import Path

    from tools.kubernetes.async_api import JsonObject
    from tools.kubernetes.control_plane import ControlPlane

START_S: Final = 120.0
LAYERS: Final = "io.containerd.snapshotter.v1.overlayfs/snapshots"
"""Where a containerd has unpacked images, below its root."""
_NAMESPACE: Final = "k8s.io"
"""containerd's, in which kubelets look."""


class Node:
    """One node.

    Args:
        name: Of the node.
        index: Which of `NODE_ADDRESSES` it has.
        folder: For everything that it writes.
        control_plane: To which it belongs.
    """

    def __init__(self, name: str, index: int, folder: Path, control_plane: ControlPlane) -> None:
        self.name = name
        self.folder = folder
        self._address = NODE_ADDRESSES[index]
        self._subnet = f"10.244.{index + 1}.0/24"
        self._bridge = f"pods{index + 1}"
        self._control_plane = control_plane
        self._socket = folder / "containerd.sock"
        self._containerd: BackgroundProcess | None = None
        self._kubelet: BackgroundProcess | None = None

    def start(self) -> None:
        """Start containerd and kubelet."""
        self.start_containerd()
        self._start_kubelet()

    def stop(self) -> None:
        """Stop both; containers go on, as they do on any node."""
        for process in (self._kubelet, self._containerd):
            if process is not None:
                process.stop()
        self._kubelet = self._containerd = None

    def wait_until_ready(self) -> None:
        """Return when the node is ready.

        Raises:
            Unavailable: The kubelet ended, or the node is not ready in time.
        """
        assert self._kubelet is not None
        self._kubelet.wait_until(self._is_ready, START_S, "ready")

    def start_containerd(self) -> None:
        """Start containerd alone; returns when it answers.

        Raises:
            Unavailable: It ended or does not answer in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_network()
        config = self.folder / "containerd.toml"
        config.write_text(self._containerd_config())
        log = self.folder / "containerd.log"
        command = ["containerd", f"--config={config}"]
        process = BackgroundProcess("containerd", command, log)
        self._containerd = process
        process.wait_until(lambda: self.ctr("version", check=False) != "", START_S, "answering")

    def import_images(self, layout: Path) -> None:
        """Import and unpack the images of an OCI layout.

        Raises:
            Unavailable: It failed; says why.
        """
        tar = ("tar", "--create", "--directory", str(layout), ".")
        with subprocess.Popen(tar, stdout=subprocess.PIPE) as reading:
            command = [*self._ctr(), "images", "import", "-"]
            done = subprocess.run(
                command, stdin=reading.stdout, capture_output=True, text=True, check=False
            )
        if done.returncode != 0:
            raise Unavailable(f"ctr images import: {done.stderr}")

    def copy_images_of(self, other: Node) -> None:
        """Take over the images of a node whose containerd is stopped, without copying files.

        Unpacked layers are never written to, so that hard links are safe; databases are copied.
        """
        source, target = other.folder / "containerd", self.folder / "containerd"
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "--archive", "--link", source, target], check=True)
        for database in target.rglob("*.db"):
            copy = database.with_suffix(".copy")
            shutil.copy2(database, copy)
            copy.replace(database)

    def ctr(self, *arguments: str, check: bool = True) -> str:
        """Ask containerd; returns what ctr wrote to standard output.

        Raises:
            Unavailable: It failed and `check` is set.
        """
        command = [*self._ctr(), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            if check:
                raise Unavailable(f"ctr {' '.join(arguments)}: {done.stderr}")
            return ""
        return done.stdout

    def running(self, **labels: str) -> dict[str, int]:
        """Containers that run, with the process id of their first process, in our namespace.

        Labels are Kubernetes' own: `running(pod_namespace="demo", container_name="main")`.
        """
        label = 'labels."io.kubernetes.{}"=={}'
        wanted = ",".join(
            label.format(name.replace("_", "."), value) for name, value in labels.items()
        )
        ids = self.ctr("containers", "list", "--quiet", wanted).split()
        tasks = (line.split() for line in self.ctr("tasks", "list").splitlines()[1:])
        return {name: int(pid) for name, pid, state in tasks if name in ids and state == "RUNNING"}

    def _ctr(self) -> list[str]:
        return ["ctr", "--address", str(self._socket), "--namespace", _NAMESPACE]

    def _is_ready(self) -> bool:
        path = f"/api/v1/nodes/{self.name}"
        if not self._control_plane.api.exists(path):
            return False
        node: JsonObject = self._control_plane.api.get(path)
        conditions = node["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _write_network(self) -> None:
        network = {
            "cniVersion": "1.0.0",
            "name": self._bridge,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self._bridge,
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": self._subnet}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self.folder / "addresses"),
                    },
                }
            ],
        }
        (self.folder / "cni").mkdir(exist_ok=True)
        write_config(self.folder / "cni/10-bridge.conflist", network)

    def _containerd_config(self) -> str:
        """For containerd 1 and 2, which call the same things by different names."""
        said = subprocess.run(
            ["containerd", "--version"], capture_output=True, text=True, check=True
        ).stdout
        old = " 1." in said or " v1." in said
        cri = "io.containerd.grpc.v1.cri" if old else "io.containerd.cri.v1.runtime"
        sandbox = (
            f'[plugins."{cri}"]\n  sandbox_image = "{SANDBOX}"'
            if old
            else f'[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "{SANDBOX}"\n'
            f'[plugins."{cri}"]'
        )
        return f"""\
version = {2 if old else 3}
root = "{self.folder}/containerd"
state = "{self.folder}/state"
oom_score = 0
[grpc]
  address = "{self._socket}"
[ttrpc]
  address = "{self.folder}/containerd.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.folder}/opt"
{sandbox}
  # Rights that root in a container or a small virtual machine may lack.
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  [plugins."{cri}".containerd]
    default_runtime_name = "runc"
    [plugins."{cri}".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."{cri}".containerd.runtimes.runc.options]
        BinaryName = "{shutil.which("runc")}"
        SystemdCgroup = false
  [plugins."{cri}".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{self.folder}/cni"
"""

    def _start_kubelet(self) -> None:
        ports = free_ports()
        resolver = self.folder / "resolv.conf"
        resolver.write_text(f"nameserver {NODE_ADDRESSES[0]}\n")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._make_cgroup(),
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "maxOpenFiles": 20000,
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "resolvConf": str(resolver),
            "podLogsDir": str(self.folder / "logs"),
            "address": self._address,
            "port": next(ports),
            "healthzPort": next(ports),
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._control_plane.authority)},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            # A disk that is nearly full is none of these tests' business, up to a point.
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 99,
            "imageGCLowThresholdPercent": 98,
            "nodeStatusUpdateFrequency": "2s",
        }
        path = write_config(self.folder / "kubelet.yaml", config)
        user = f"system:node:{self.name}"
        kubeconfig = self._control_plane.kubeconfig_for(user, ("system:nodes",))
        command = [
            str(locate("kubelet")),
            f"--config={path}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={self._address}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'certificates'}",
            "--v=2",
        ]
        self._kubelet = BackgroundProcess("kubelet", command, self.folder / "kubelet.log")

    def _make_cgroup(self) -> str:
        """A cgroup of this node below the one that `node_space` removes."""
        path = f"{cgroup()}/{self.name}"
        for root in cgroup_folders():
            (root / self.name).mkdir(exist_ok=True)
        return path


def write_config(path: Path, content: JsonObject) -> Path:
    """Write a configuration of a program as JSON, which is YAML too; returns the path."""
    path.write_text(json.dumps(content, indent=1))
    return path
