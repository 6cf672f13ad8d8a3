"""`python launch.py PARENT SPEC` becomes a container's process; it imports nothing of ours.

The process gets a mount namespace of its own. Its root is a tmpfs in which this machine's folders
appear read-only, without what is private to a machine (/tmp, /run), and with the container's
volumes at their places. `python launch.py PARENT SPEC PID` runs a command in the container of
process PID.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import struct
import sys
import traceback
from pathlib import Path
from typing import Any, Final

# From <linux/mount.h>, <sched.h> and <linux/prctl.h>.
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_AT_RECURSIVE: Final = 0x8000
_AT_FDCWD: Final = -100
_MOUNT_ATTR_RDONLY: Final = 1
_SYS_MOUNT_SETATTR: Final = 442
_CLONE_NEWNS: Final = 0x00020000
_PR_SET_PDEATHSIG: Final = 1

PRIVATE: Final = ("/tmp", "/run", "/dev/shm", "/var/tmp")
"""Of the machine, and not seen in containers, which begin with empty ones."""
_LIVE: Final = ("/proc", "/sys", "/dev")
"""Not files: never made read-only."""
FAILED_TO_START: Final = 128

_libc = ctypes.CDLL(None, use_errno=True)


class Root:
    """The file system of a container, built at `folder` in the present mount namespace.

    Args:
        folder: An empty folder.
        mounts: Pairs of a host path and its place in the container.
    """

    def __init__(self, folder: str, mounts: list[tuple[str, str]]) -> None:
        self._folder = folder
        # Links such as /var/run are the machine's own, so they lead to the same place inside.
        # A folder is mounted before what lies in it, as container runtimes do: a volume at /tmp
        # must not hide an image's folder below it.
        placed = [(source, os.path.realpath(target)) for source, target in mounts]
        self._mounts = sorted(placed, key=lambda mount: mount[1].count("/"))
        self._private = {os.path.realpath(path) for path in PRIVATE}
        self._ours = {"/", *self._private}
        """Folders that we make ourselves, because something is missing in the machine's."""
        for target in (*self._private, *(target for _, target in self._mounts)):
            if not Path(target).exists() or self._is_hidden(target):
                self._ours |= {str(parent) for parent in Path(target).parents}

    def build(self) -> None:
        """Make it; later mounts lie above earlier ones."""
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", self._folder, "tmpfs", 0, "mode=755")
        self._fill("/")
        for source, target in self._mounts:
            self._bind(source, target)

    def seal(self, writable: list[str]) -> None:
        """Make everything read-only but what is mounted at these places."""
        keep = {os.path.realpath(path) for path in writable} | set(_LIVE)
        _read_only(self._folder, recursive=False)
        for _, target in self._mounts:
            if target not in keep:
                _read_only(self._inside(target), recursive=True)

    def _fill(self, folder: str) -> None:
        names = set()
        if not self._is_hidden(folder) and Path(folder).is_dir():
            names = set(os.listdir(folder))  # noqa: PTH208 -- names, not paths
        made = {Path(path).name for path in self._ours if os.path.dirname(path) == folder} - {""}  # noqa: PTH120
        for name in sorted(names | made):
            path = os.path.join(folder, name)  # noqa: PTH118
            inside = Path(self._inside(path))
            if path in self._ours:
                inside.mkdir(exist_ok=True)
                inside.chmod(0o1777 if path in self._private else 0o755)
                self._fill(path)
            elif Path(path).is_symlink():
                inside.symlink_to(os.readlink(path))  # noqa: PTH115
            else:
                self._bind(path, path)
                if not path.startswith(_LIVE):
                    _read_only(str(inside), recursive=True)

    def _bind(self, source: str, target: str) -> None:
        inside = Path(self._inside(target))
        if not inside.exists():
            if stat.S_ISDIR(os.stat(source).st_mode):  # noqa: PTH116
                inside.mkdir(parents=True)
            else:
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.touch()
        _mount(source, str(inside), None, _MS_BIND | _MS_REC)

    def _is_hidden(self, path: str) -> bool:
        return any(Path(path).is_relative_to(private) for private in self._private)

    def _inside(self, path: str) -> str:
        return f"{self._folder}/{path.lstrip('/')}"


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    if _libc.mount(words[0], words[1], words[2], flags, words[3]) != 0:
        raise _failure(f"mount {source} at {target}")


def _read_only(path: str, *, recursive: bool) -> None:
    # struct mount_attr: set, clear, propagation, user namespace
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    words = (_AT_FDCWD, path.encode(), flags, attributes, len(attributes))
    if _libc.syscall(_SYS_MOUNT_SETATTR, *words) != 0:
        raise _failure(f"make {path} read-only (Linux 5.12 or newer can)")


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"cannot {what}: {os.strerror(number)}")


def _enter_new(spec: dict[str, Any]) -> None:
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise _failure("make a mount namespace")
    mounts = [(mount["source"], mount["target"]) for mount in spec["mounts"]]
    root = Root(spec["root"], mounts)
    root.build()
    for mount in spec["mounts"]:
        if mount["read_only"]:
            inside = spec["root"] + os.path.realpath(mount["target"])
            _read_only(inside, recursive=True)
    if spec["read_only"]:
        root.seal([mount["target"] for mount in spec["mounts"] if not mount["read_only"]])
    os.chroot(spec["root"])


def _enter_existing(pid: int) -> None:
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    if _libc.setns(namespace, _CLONE_NEWNS) != 0:
        raise _failure(f"enter the mounts of process {pid}")
    os.fchdir(root)
    os.chroot(".")


def main(arguments: list[str]) -> int:
    """Become the command; returns only when that failed."""
    parent, path, *existing = arguments
    spec = json.loads(Path(path).read_text())
    # A pipe: its end says that the command has begun, its content that it could not.
    os.set_inheritable(spec["outcome"], False)
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != int(parent):
            os.kill(os.getpid(), signal.SIGKILL)  # it died before we asked
        if existing:
            _enter_existing(int(existing[0]))
        else:
            _enter_new(spec)
        os.chdir(spec["working_dir"])
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])
    except OSError as error:
        os.write(spec["outcome"], f"{spec['command'][0]}: {error.strerror}".encode())
        traceback.print_exc()
    return FAILED_TO_START


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
