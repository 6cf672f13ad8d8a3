"""Real nodes beside a control plane, with one kube-proxy for all.

    with NodeCluster(folder, layout) as cluster:
        cluster.control_plane.kubectl("get", "nodes")

Runs inside of `node_space` only. Nodes share one network namespace, so one kube-proxy does for all;
each has an address, a bridge and a containerd of its own. There is no DNS in the cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.node import LAYERS, Node, write_config
from tools.kubernetes.node_images import link_packages
from tools.kubernetes.node_space import NODE_ADDRESSES
from tools.kubernetes.processes import BackgroundProcess
from tools.kubernetes.programs import locate

if TYPE_CHECKING:
    from pathlib import Path


class NodeCluster:
    """A control plane and its nodes; starts on entry.

    Args:
        folder: For everything that they write, unpacked images included; removed by the caller.
        layout: Images that the nodes have (`node_images.build`).
        num_nodes: 1 or 2.

    Attributes:
        control_plane: The control plane.
        nodes: The nodes, in the order of their names node1, node2.
    """

    def __init__(self, folder: Path, layout: Path, *, num_nodes: int = 1) -> None:
        self._folder = folder
        self._layout = layout
        self.control_plane = ControlPlane(
            folder / "control-plane",
            api_server_arguments=(
                # Pods reach it at the node's address, by the Service `kubernetes`.
                "--bind-address=0.0.0.0",
                f"--advertise-address={NODE_ADDRESSES[0]}",
                "--endpoint-reconciler-type=lease",
                "--kubelet-preferred-address-types=InternalIP",
            ),
        )
        self.nodes = [
            Node(f"node{index + 1}", index, folder / f"node{index + 1}", self.control_plane)
            for index in range(num_nodes)
        ]
        self._proxy: BackgroundProcess | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; returns when all nodes are ready.

        Raises:
            ConfigError: A program is not built.
            Unavailable: Something ended, or is not ready in time.
        """
        self._fill_containerds()
        self.control_plane.start()
        for node in self.nodes:
            node.start()
        self._start_proxy()
        for node in self.nodes:
            node.wait_until_ready()

    def stop(self) -> None:
        """Stop all programs. Containers end with the process namespace at the latest."""
        for node in self.nodes:
            node.stop()
        if self._proxy is not None:
            self._proxy.stop()
        self.control_plane.stop()

    def _fill_containerds(self) -> None:
        """Import the images once; other nodes get hard links to the same unpacked files."""
        first, *others = self.nodes
        first.start_containerd()
        first.import_images(self._layout)
        first.stop()
        link_packages(first.folder / "containerd" / LAYERS)
        for node in others:
            node.copy_images_of(first)

    def _start_proxy(self) -> None:
        folder = self._folder / "proxy"
        folder.mkdir()
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {
                "kubeconfig": str(self.control_plane.kubeconfig_for("system:kube-proxy"))
            },
            "hostnameOverride": self.nodes[0].name,
            "bindAddress": NODE_ADDRESSES[0],
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            # The machine's own limits are not ours to change.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
        path = write_config(folder / "config.yaml", config)
        command = [str(locate("kube-proxy")), f"--config={path}"]
        self._proxy = BackgroundProcess("kube-proxy", command, folder / "kube-proxy.log")
