"""`python -m tools.kubernetes.node_space -- COMMAND...`: runs it where real nodes may be started.

The command gets namespaces of its own: network (a bridge with the nodes' addresses, no way out),
mounts (what kubelets and containerds leave in /run and /var is on tmpfs), and processes. When the
command ends, or is killed, the kernel ends everything that it started, containers included; then
the cgroups are removed. Nothing of the machine's own is changed.

Where something is missing the command runs all the same, outside, and `problems` tells why it
cannot have nodes: tests skip with these sentences. `--check` says them, with exit status 1.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redserve.errors import Unavailable
from tools.kubernetes.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

NODE_ADDRESSES: Final = ("10.200.0.1", "10.200.0.2")
CNI_PLUGINS: Final = Path("/usr/lib/cni")
PACKAGES: Final = (
    "buildah conntrack containerd containernetworking-plugins debootstrap iproute2 iptables "
    "nftables openssl runc"
)
"""Of Debian."""
_PROGRAMS: Final = (
    *("buildah", "conntrack", "containerd", "ctr", "debootstrap"),
    *("ip", "iptables", "nft", "openssl", "runc"),
)
_NOTE: Final = Path("/run/redserve-node.json")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_FOLDERS: Final = ("/run", "/var/lib/cni", "/var/log/containers", "/var/log/pods")
"""Where programs write that take no argument for it."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
# From <linux/sched.h> and <linux/mount.h>.
_NEW_MOUNTS: Final = 0x00020000
_NAMESPACES: Final = 0x40000000 | _NEW_MOUNTS | 0x20000000
"""Network, mounts, processes."""
_MS_PRIVATE_ALL: Final = 0x4000 | (1 << 18)
_MS_SHARED_ALL: Final = 0x4000 | (1 << 20)


def problems() -> list[str]:
    """Why this machine cannot run nodes, a sentence each; empty when it can."""
    if sys.platform != "linux":
        return ["nodes need Linux"]
    if os.geteuid() != 0:
        return ["nodes need root (namespaces, mounts, cgroups)"]
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if not (CNI_PLUGINS / "bridge").exists():
        missing.append(str(CNI_PLUGINS / "bridge"))
    if missing:
        return [f"missing: {', '.join(missing)}; on Debian: apt-get install -y {PACKAGES}"]
    command = [sys.executable, "-m", "tools.kubernetes.node_space", "--probe"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [f"the kernel, or the container that this is, does not allow it: {done.stderr}"]
    return []


def is_inside() -> bool:
    """Whether this process may start nodes."""
    return _NOTE.is_file()


def cgroup() -> str:
    """Path of the cgroup below which nodes put theirs; only inside."""
    return str(json.loads(_NOTE.read_text())["cgroup"])


def cgroup_folders() -> list[Path]:
    """Where that cgroup is: one folder, or one for each controller; only inside."""
    return [controller / cgroup()[1:] for controller in _controllers()]


def run(command: Sequence[str]) -> int:
    """Run a command in namespaces of its own; returns its exit status.

    Three processes: this one stays outside and cleans up; the second leaves the machine's
    namespaces; the third is the first process of the new ones.
    """
    name = f"redserve-node-{os.getpid()}"
    made = _make_folders()
    child = os.fork()
    if child == 0:
        os._exit(_leave(name, command))
    _hand_signals_to(child)
    try:
        return _exit_status(os.waitpid(child, 0)[1])
    finally:
        _remove_cgroups(name)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _leave(name: str, command: Sequence[str]) -> int:
    die_with_parent()
    if _LIBC.unshare(_NAMESPACES) != 0:
        print(f"error: unshare: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 2
    child = os.fork()
    if child == 0:
        die_with_parent()
        os._exit(_first_process(name, command))
    _hand_signals_to(child)
    return _exit_status(os.waitpid(child, 0)[1])


def _exit_status(waited: int) -> int:
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code  # as a shell says it


def _hand_signals_to(child: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(child, number))


def _first_process(name: str, command: Sequence[str]) -> int:
    """Process 1: prepares the namespaces, starts the command, reaps orphans until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        _mounts()
        _network()
        for controller in _controllers():
            (controller / name).mkdir()
        _NOTE.write_text(json.dumps({"cgroup": f"/{name}"}))
    except (OSError, subprocess.CalledProcessError, Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    child = os.fork()
    if child == 0:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvp(command[0], list(command))
        except OSError as error:
            print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
            os._exit(127)
    _hand_signals_to(child)
    while True:
        ended, status = os.wait()
        if ended == child:
            return _exit_status(status)


def _mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode())
    if _LIBC.mount(*words, ctypes.c_ulong(flags), options.encode()) != 0:
        raise Unavailable(f"mount {kind or source} on {target}: {os.strerror(ctypes.get_errno())}")


def _mounts() -> None:
    # Nothing that is mounted from here on is seen outside; inside, containers see each other's.
    _mount("none", "/", "", _MS_PRIVATE_ALL)
    _mount("none", "/", "", _MS_SHARED_ALL)
    _mount("proc", "/proc", "proc")
    for folder in _OWN_FOLDERS:
        _mount("tmpfs", folder, "tmpfs", options="mode=755")
    Path("/run/lock").mkdir()
    # A second hierarchy beside version 1 confuses container runtimes.
    if (_CGROUPS / "unified").is_dir():
        _LIBC.umount2(str(_CGROUPS / "unified").encode(), 0)


def _network() -> None:
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("link", "set", "lo", "up")
    ip("link", "add", "nodes", "type", "bridge")
    for address in NODE_ADDRESSES:
        ip("address", "add", f"{address}/24", "dev", "nodes")
    ip("link", "set", "nodes", "up")
    # Leads nowhere; but without a route the kernel never asks what a Service's address stands for.
    ip("route", "add", "default", "via", "10.200.0.254")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _controllers() -> list[Path]:
    """Where cgroups are made: one folder for version 2, one per controller for version 1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if (path / "cgroup.procs").exists()]


def leave_mounts() -> None:
    """From here on, what this process mounts is seen by nobody else and ends with it.

    Raises:
        Unavailable: The kernel refuses.
    """
    if _LIBC.unshare(_NEW_MOUNTS) != 0:
        raise Unavailable(f"unshare: {os.strerror(ctypes.get_errno())}")
    _mount("none", "/", "", _MS_PRIVATE_ALL)


def _make_folders() -> list[Path]:
    """Make the folders that are mounted over; returns those that were not there."""
    made = [Path(folder) for folder in _OWN_FOLDERS if not Path(folder).exists()]
    for folder in made:
        folder.mkdir(parents=True)
    return made


def _remove_cgroups(name: str) -> None:
    deadline = time.monotonic() + 60
    for controller in _controllers():
        root = controller / name
        if not root.is_dir():
            continue
        folders = [Path(path) for path, _, _ in os.walk(root, topdown=False)]
        for folder in folders:
            # A process that was just killed may still be leaving.
            while folder.exists():
                with suppress(OSError):
                    folder.rmdir()
                    break
                if time.monotonic() > deadline:
                    print(f"left behind: {folder}", file=sys.stderr)
                    break
                time.sleep(0.05)


def _probe() -> int:
    """Try everything once that nodes need of the kernel."""
    script = (
        "set -e; d=$(mktemp -d); mount -t tmpfs none $d; mkdir $d/a $d/b $d/w $d/m; "
        "mount -t overlay overlay -o lowerdir=$d/a,upperdir=$d/b,workdir=$d/w $d/m; "
        "ip link add v0 type veth peer name v1; nft list ruleset; iptables -w -L -n >/dev/null; "
        "umount $d/m $d; rmdir $d"
    )
    return run(["sh", "-c", script])


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    if list(arguments) == ["--probe"]:
        return _probe()
    command = list(arguments[1:]) if arguments[:1] == ["--"] else list(arguments)
    if not command:
        print("usage: python -m tools.kubernetes.node_space -- COMMAND...", file=sys.stderr)
        return 2
    why = problems()
    if why:
        line = "!" * 72
        print(f"{line}\nNo real nodes here: {'; '.join(why)}\n{line}", file=sys.stderr, flush=True)
    if command == ["--check"]:
        return 1 if why else 0
    if why:
        os.execvp(command[0], command)
    return run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
