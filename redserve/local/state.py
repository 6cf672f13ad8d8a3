"""What a running service leaves in a file, so that other commands find it.

    <runtime directory>/<service>/lock         held as long as the supervisor lives
                                  state.json   replaced as a whole at every change
                                  logs/        one file per process

The lock, not the file, says whether the service runs: the kernel gives it back however the
supervisor ends, so that a file which was left behind is recognised.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from redserve.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

Phase = Literal["starting", "ready", "unready", "restarting", "draining", "stopped"]
"""Of a process. `unready`: it runs and was ready before; `restarting`: it waits for its turn."""

_STATE: Final = "state.json"
_LOCK: Final = "lock"
_LOGS: Final = "logs"


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process.

    Attributes:
        name: For example "encoder-0".
        role: "router", "encoder" or "llm".
        phase: What it does.
        pid: Its process id; None while it does not run.
        address: host:port of its gRPC server.
        metrics_address: host:port of its `/metrics`; None without.
        num_restarts: How often it was started again.
        log: Path of its log file.
    """

    name: str
    role: str
    phase: Phase
    pid: int | None
    address: str
    metrics_address: str | None
    num_restarts: int
    log: str


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A running service.

    Attributes:
        service: Its name.
        pid: Of the supervisor.
        manifest: Path of the manifest.
        started_unix_s: When it was started, seconds since the Unix epoch.
        phase: "starting", "ready", "unready" (a process is not ready) or "draining".
        grpc_address: host:port of the router's gRPC API.
        http_address: host:port of its HTTP API; None when it is disabled.
        processes: All processes.
        playground: Whether the page for people is at / of the HTTP API.
        namespace: The manifest's; None if it has none.
    """

    service: str
    pid: int
    manifest: str
    started_unix_s: float
    phase: Phase
    grpc_address: str
    http_address: str | None
    processes: tuple[ProcessState, ...] = ()
    playground: bool = False
    namespace: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        processes = tuple(ProcessState(**one) for one in raw["processes"])
        return cls(**{**raw, "processes": processes})


class ServiceFolder:
    """The folder of a service that this process runs; made by `hold`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def log_path(self, name: str) -> Path:
        """Where the output of a process goes."""
        return self._path / _LOGS / f"{name}.log"

    def write(self, state: ServiceState) -> None:
        """Replace the state.

        Raises:
            OSError: It stays as it was.
        """
        fresh = self._path / f".{_STATE}"
        try:
            fresh.write_text(json.dumps(state.to_dict(), indent=1), encoding="utf-8")
            fresh.replace(self._path / _STATE)
        except OSError as error:
            error.filename = error.filename or str(fresh)  # a write that fails names no file
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise


@contextmanager
def hold(root: Path, service: str) -> Iterator[ServiceFolder]:
    """Take the name of a service on this machine; the state vanishes at the end, logs stay.

    Raises:
        ConfigError: A service of that name runs already.
        Unavailable: The runtime directory cannot be used.
    """
    path = root / service
    _make_private(root)
    try:
        path.mkdir(exist_ok=True)
        lock = (path / _LOCK).open("a+b")
    except OSError as error:
        raise Unavailable(f"{path} cannot be used: {error.strerror}") from error
    with lock:
        if not _try_lock(lock):
            running = _read(path)
            who = f" (process {running.pid})" if running else ""
            raise ConfigError(
                f"a service named {service!r} runs already{who}; stop it, or choose another name",
                field="metadata.name",
            )
        shutil.rmtree(path / _LOGS, ignore_errors=True)
        (path / _LOGS).mkdir()
        try:
            yield ServiceFolder(path)
        finally:
            (path / _STATE).unlink(missing_ok=True)


def running_services(root: Path) -> tuple[ServiceState, ...]:
    """Every service of this user that runs now, by name. Files that were left behind are not."""
    if not root.is_dir():
        return ()
    found = [_read(path) for path in sorted(root.iterdir()) if _is_held(path)]
    return tuple(state for state in found if state is not None)


def find_service(root: Path, name: str | None = None) -> ServiceState:
    """The running service of that name, or the only one.

    Raises:
        ConfigError: There is none, or several and no name chooses.
    """
    running = running_services(root)
    if name is not None:
        chosen = next((state for state in running if state.service == name), None)
        if chosen is None:
            raise ConfigError(f"no service named {name!r} runs here{_others(running)}")
        return chosen
    if not running:
        raise ConfigError(
            "no service runs here; start one with 'redserve up -f redservice.yaml', or name a "
            "router with --address HOST:PORT"
        )
    if len(running) > 1:
        raise ConfigError(f"choose a service with --service NAME{_others(running)}")
    return running[0]


def overall(processes: Sequence[ProcessState], before: Phase) -> Phase:
    """Phase of the service: ready when every process is."""
    if before == "draining":
        return before
    if all(process.phase == "ready" for process in processes):
        return "ready"
    return "starting" if before == "starting" else "unready"


def with_processes(state: ServiceState, processes: Sequence[ProcessState]) -> ServiceState:
    """The state after something changed."""
    phase = overall(processes, state.phase)
    return replace(state, processes=tuple(processes), phase=phase)


def _others(running: Sequence[ServiceState]) -> str:
    names = ", ".join(state.service for state in running)
    return f"; running: {names}" if names else "; nothing runs"


def _is_held(path: Path) -> bool:
    try:
        with (path / _LOCK).open("rb") as lock:
            return not _try_lock(lock, shared=True)
    except OSError:
        return False


def _try_lock(lock: BinaryIO, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> ServiceState | None:
    try:
        raw = json.loads((path / _STATE).read_text(encoding="utf-8"))
        return ServiceState.from_dict(raw)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not written yet, or by another release


def _make_private(root: Path) -> None:
    """The folder may be in a place where everybody writes: it must be ours alone."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = root.lstat()
    except OSError as error:
        raise Unavailable(f"{root} cannot be used: {error.strerror}") from error
    if root.is_symlink() or owner.st_uid != os.getuid():
        raise Unavailable(
            f"{root} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of your own"
        )
