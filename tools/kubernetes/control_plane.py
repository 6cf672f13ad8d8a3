"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler, on loopback, for one test run.

    with ControlPlane(folder) as cluster:
        cluster.kubectl("get", "namespaces")

What differs from a cluster's usual settings: etcd does not wait for its disk; autoscalers look
every second instead of every 15 s; controllers may ask more often, so that tests wait for the
operator and not for their rate limits; a node is never given up, as most nodes here are made up.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final, Self

from redserve.errors import RedServeError, Unavailable
from redserve.local.ports import LOOPBACK, free_ports
from tools.kubernetes.async_api import ApiError
from tools.kubernetes.certificates import CertificateAuthority, write_kubeconfig
from tools.kubernetes.client import ApiClient
from tools.kubernetes.networks import SERVICE_NETWORK
from tools.kubernetes.processes import BackgroundProcess
from tools.kubernetes.programs import locate

_NAMES: Final = (
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.cluster.local",
    f"IP:{LOOPBACK}",
    "IP:10.96.0.1",
)
_START_S: Final = 120.0
_API_SERVER_GRACE_S: Final = 3.0
"""It waits for watches to end, and those of the controllers do not."""


class ControlPlane:
    """Starts on entry, and leaves nothing but its folder on exit.

    Args:
        folder: For certificates, data and logs; owned by the control plane, removed by the caller.
        api_server_arguments: Added to kube-apiserver's own, and win.
        controller_arguments: The same for kube-controller-manager.

    Attributes:
        folder: As given.
        kubeconfig: Of an administrator.
        server: Address of the API server, such as https://127.0.0.1:23456.
        authority: Certificate by which clients know the API server.
        api: A client with an administrator's rights.
    """

    def __init__(
        self,
        folder: Path,
        *,
        api_server_arguments: tuple[str, ...] = (),
        controller_arguments: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self._api_server_arguments = api_server_arguments
        self._controller_arguments = controller_arguments
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        ports = free_ports()
        self._ports = {
            name: next(ports)
            for name in ("etcd", "etcd-peer", "api-server", "controllers", "scheduler")
        }
        self.server = f"https://{LOOPBACK}:{self._ports['api-server']}"
        self._pki = CertificateAuthority(folder / "pki")
        self.authority = self._pki.certificate
        self._server_pair = self._pki.server("kube-apiserver", _NAMES)
        self._token_keys = self._pki.rsa_key("service-accounts")
        self._kubelet_client = self._pki.client(
            "kubelet-client", "apiserver-kubelet-client", ("system:masters",)
        )
        self.kubeconfig = self.kubeconfig_for("admin", ("system:masters",))
        self.api = ApiClient(self.kubeconfig)
        self._processes: dict[str, BackgroundProcess] = {}

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
        """Start everything; returns when pods would be created and scheduled.

        Raises:
            ConfigError: A program is not built.
            Unavailable: A program ended or is not healthy in time; the message ends with its log.
        """
        self._start_etcd()
        self.start_api_server()
        self._start_controllers()
        self._start_scheduler()
        # Made by a controller: the controllers run.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._processes["kube-controller-manager"].wait_until(
            lambda: self.api.exists(account), _START_S, "at work"
        )

    def stop(self) -> None:
        """Stop everything that runs."""
        # The API server hangs in its shutdown once etcd is gone.
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            if (process := self._processes.pop(name, None)) is not None:
                process.stop()
        self.api.close()

    def start_api_server(self) -> None:
        """Start the API server, at the same address as before; returns when it is ready.

        Raises:
            ConfigError: It is not built.
            Unavailable: It ended or is not ready in time.
        """
        process = self._run("kube-apiserver", *self._api_server_flags())
        process.wait_until(lambda: self._answers("/readyz"), _START_S, "ready")

    def stop_api_server(self, *, kill: bool = False) -> None:
        """Stop the API server alone, by SIGTERM, or by SIGKILL with `kill`."""
        process = self._processes.pop("kube-apiserver")
        if kill:
            process.kill()
        else:
            process.stop(grace_s=_API_SERVER_GRACE_S)
        self.api.close()  # its connections have ended with the server

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002
        """Run kubectl as an administrator; returns what it wrote to standard output.

        Raises:
            Unavailable: It failed and `check` is set; the message is its standard error.
        """
        command = [str(locate("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise Unavailable(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kubeconfig_for(self, user: str, groups: tuple[str, ...] = ()) -> Path:
        """A kubeconfig of a user in groups, by a certificate; what it may do is up to RBAC."""
        name = user.replace(":", "-").replace("/", "-")
        pair = self._pki.client(name, user, groups)
        path = self.folder / f"{name}.kubeconfig"
        return write_kubeconfig(path, self.server, self.authority, pair)

    def pid(self, name: str) -> int:
        """Process id of one of the programs, such as "kube-controller-manager"."""
        return self._processes[name].pid

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory of each program."""
        found = {}
        for name, process in self._processes.items():
            status = Path(f"/proc/{process.pid}/status").read_text()
            line = next(row for row in status.splitlines() if row.startswith("VmRSS:"))
            found[name] = int(line.split()[1]) * 1024
        return found

    def _run(self, name: str, *flags: str) -> BackgroundProcess:
        log = self.folder / "logs" / f"{name}.log"
        process = BackgroundProcess(name, [locate(name), *flags], log)
        self._processes[name] = process
        return process

    def _answers(self, path: str) -> bool:
        try:
            self.api.get(path)
        except (ApiError, RedServeError):
            return False
        return True

    def _start_etcd(self) -> None:
        client = f"http://{LOOPBACK}:{self._ports['etcd']}"
        peer = f"http://{LOOPBACK}:{self._ports['etcd-peer']}"
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _api_server_flags(self) -> tuple[str, ...]:
        certificate, key = self._server_pair
        private, public = self._token_keys
        client_certificate, client_key = self._kubelet_client
        return (
            f"--etcd-servers=http://{LOOPBACK}:{self._ports['etcd']}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self._ports['api-server']}",
            # The Service `kubernetes` would point to loopback, which EndpointSlices refuse.
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.authority}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={client_certificate}",
            f"--kubelet-client-key={client_key}",
            "--profiling=false",
            *self._api_server_arguments,
        )

    def _start_controllers(self) -> None:
        config = self.kubeconfig_for("system:kube-controller-manager")
        private, _ = self._token_keys
        port = self._ports["controllers"]
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={private}",
            f"--root-ca-file={self.authority}",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--horizontal-pod-autoscaler-downscale-stabilization=5s",
            "--node-monitor-grace-period=24h",
            "--profiling=false",
            *self._controller_arguments,
        )

    def _start_scheduler(self) -> None:
        config = self.kubeconfig_for("system:kube-scheduler")
        port = self._ports["scheduler"]
        self._run(
            "kube-scheduler",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--profiling=false",
        )
