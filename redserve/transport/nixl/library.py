"""NIXL's bindings behind the few calls that we make, with their errors sorted."""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from redserve.transport.cutting import Pair
    from redserve.transport.slab import Memory, Slab

_PACKAGES: Final = ("nixl_cu13", "nixl_cu12")
"""The wheels, by CUDA release; both run without CUDA."""
_PROGRESS_DELAY_US: Final = 5000
"""How long NIXL's progress thread waits for an event before it looks anyway. With 0, which the
library's own Python wrapper sets, it spins on a core of every process. With 1 ms an idle process
took 1.3 to 2.2 % of a core, with 5 ms 0.5 to 1 %, at the same rates: events do wake it."""


class AgentError(Exception):
    """A call of the library failed; its message says which."""


class LibraryMissing(AgentError):
    """NIXL is not installed, or cannot be loaded."""


class PeerDisconnected(AgentError):
    """The process at the other end is gone."""


class NoWay(AgentError):
    """A peer cannot be reached at all: nothing was begun."""


class ForeignMetadata(NoWay):
    """What came as the metadata of a peer is another's. That says nothing about the peer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """How an agent's memory is addressed.

    Attributes:
        name: Of the agent.
        address: Of the first byte of its pool.
        memory: Host or device.
        device_id: Which device.
    """

    name: str
    address: int
    memory: Memory
    device_id: int


class Agent:
    """One agent and its registered slab. All calls belong to one thread.

    Args:
        name: Unique for ever.
        slab: Registered as long as the agent lives.
        serves: Whether others read from here. Over TCP it is then the library's own thread that
            sends. Who only reads has none: `is_done` receives, and a second thread that did the
            same would spin on UCX's lock beside it. Reads were a fifth faster without, small ones
            twice as fast, and an idle consumer takes no CPU.

    Raises:
        LibraryMissing: See there.
        AgentError: UCX has no transport that it may use, or cannot register the memory.
    """

    def __init__(self, name: str, slab: Slab, *, serves: bool) -> None:
        self._bindings = bindings = _load()
        self._errors = _errors(bindings)
        self._slab = slab
        self._me = Peer(name, slab.address, slab.memory, slab.device_id)
        config = bindings.nixlAgentConfig()
        config.useProgThread = serves
        config.useListenThread = False  # it would listen on every address, to anybody
        config.pthrDelay = _PROGRESS_DELAY_US
        config.syncMode = bindings.NIXL_THREAD_SYNC_NONE
        config.captureTelemetry = False
        try:
            # UCX exports GPU memory to the NIC only in a thread that has the GPU's context.
            slab.enter_thread()
            self._agent: Any = bindings.nixlAgent(name, config)
            # "peer": the death of the other end is an error, and not silence.
            self._agent.createBackend("UCX", {"ucx_error_handling_mode": "peer"})
            self._registered = bindings.nixlRegDList(
                self._memory_type(slab.memory),
                [(slab.address, slab.num_bytes, slab.device_id, "")],
            )
            self._agent.registerMem(self._registered, [])
        except self._errors as error:
            raise AgentError(f"UCX cannot start: {error}") from error
        self._opening, found, _ = self.metadata.partition(_sized(name))
        if not found:
            raise AgentError(f"{version()} writes metadata in a form that is not known here")

    @property
    def address(self) -> int:
        """Of the first byte of the slab."""
        return self._me.address

    @property
    def metadata(self) -> bytes:
        """What a peer needs to read from here."""
        return bytes(self._agent.getLocalMD())

    def add_peer(self, peer: Peer, metadata: bytes) -> None:
        """Make a peer known, before anything is read from it.

        Raises:
            ForeignMetadata: See there.
            NoWay: It cannot be reached by what UCX may use.
        """
        self.check_metadata(peer.name, metadata)
        try:
            self._agent.loadRemoteMD(metadata)
        except self._errors as error:
            # What was taken of it would stand in the way of better metadata.
            with suppress(*self._errors):
                self._agent.invalidateRemoteMD(peer.name)
            raise NoWay(f"no way to {peer.name}: {error}") from error

    def check_metadata(self, name: str, metadata: bytes) -> None:
        """Loading what names another peer might damage the entry of that one.

        Raises:
            ForeignMetadata: See there.
        """
        if not metadata.startswith(self._opening + _sized(name)):
            raise ForeignMetadata(f"the metadata is not that of {name}")

    def remove_peer(self, name: str) -> None:
        """Disconnect; only when nothing is read from it any more."""
        try:
            self._agent.invalidateRemoteMD(name)
        except self._errors as error:
            raise AgentError(f"{name} cannot be removed: {error}") from error

    def start(self, peer: Peer, batch: Sequence[Pair]) -> int | None:
        """Read `batch` from `peer`.

        Within a host it may be done when this returns, after a copy in this thread.

        Returns:
            A handle for `is_done`, or None if all bytes are here.

        Raises:
            PeerDisconnected, AgentError: Nothing was read.
        """
        bindings = self._bindings
        landing = self._list(self._me, [pair.landing for pair in batch], batch)
        source = self._list(peer, [pair.source for pair in batch], batch)
        try:
            handle: int = self._agent.createXferReq(
                bindings.NIXL_READ, landing, source, peer.name, b"", []
            )
        except self._errors as error:
            raise self._sorted(error) from error
        try:
            status = self._agent.postXferReq(handle, b"")
        except self._errors as error:
            self.release(handle)
            raise self._sorted(error) from error
        if status == bindings.NIXL_IN_PROG:
            return handle
        self.release(handle)
        if status != bindings.NIXL_SUCCESS:
            raise AgentError(f"the read from {peer.name} ended with {status}")
        return None

    def is_done(self, handle: int) -> bool:
        """Whether all bytes are here; then, or after an error, release the handle.

        Raises:
            PeerDisconnected, AgentError: The read has failed.
        """
        try:
            status = self._agent.getXferStatus(handle)
        except self._errors as error:
            raise self._sorted(error) from error
        if status == self._bindings.NIXL_IN_PROG:
            return False
        if status != self._bindings.NIXL_SUCCESS:
            raise AgentError(f"the read ended with {status}")
        return True

    def release(self, handle: int) -> None:
        """Forget a read that has ended. One under way would go on writing."""
        try:
            self._agent.releaseXferReq(handle)
        except self._errors as error:
            raise AgentError(f"a handle cannot be released: {error}") from error

    def close(self) -> None:
        """Deregister and disconnect; only when nothing is under way."""
        try:
            self._agent.deregisterMem(self._registered, [])
        except self._errors as error:
            raise AgentError(f"the pool cannot be deregistered: {error}") from error
        finally:
            del self._agent

    def _memory_type(self, memory: Memory) -> Any:
        return self._bindings.VRAM_SEG if memory == "vram" else self._bindings.DRAM_SEG

    def _list(self, owner: Peer, offsets: Sequence[int], batch: Sequence[Pair]) -> Any:
        rows = np.empty((len(batch), 3), np.uint64)
        rows[:, 0] = np.asarray(offsets, np.uint64) + np.uint64(owner.address)
        rows[:, 1] = [pair.num_bytes for pair in batch]
        rows[:, 2] = owner.device_id
        return self._bindings.nixlXferDList(self._memory_type(owner.memory), rows)

    def _sorted(self, error: Exception) -> AgentError:
        if isinstance(error, self._bindings.nixlRemoteDisconnectError):
            return PeerDisconnected(str(error))
        return AgentError(str(error))


def _sized(name: str) -> bytes:
    """An agent's name as metadata has it: after its length, so that it is not part of another."""
    encoded = name.encode()
    return len(encoded).to_bytes(8, "little") + encoded


def version() -> str:
    """Package and release of the library; empty when there is none."""
    from importlib.metadata import PackageNotFoundError, version

    for package in _PACKAGES:
        try:
            return f"{package} {version(package.replace('_', '-'))}"
        except PackageNotFoundError:
            continue
    return ""


def _load() -> ModuleType:
    problems = []
    for package in _PACKAGES:
        try:
            return importlib.import_module(f"{package}._bindings")
        except ImportError as error:
            problems.append(str(error))
    raise LibraryMissing(f"NIXL cannot be loaded ({'; '.join(problems)}); install nixl-cu13")


def _errors(bindings: ModuleType) -> tuple[type[Exception], ...]:
    """All that the library raises: its errors have no base of their own."""
    found = [
        value
        for name, value in vars(bindings).items()
        if name.startswith("nixl") and name.endswith("Error") and isinstance(value, type)
    ]
    return (*found, RuntimeError)  # what it does not translate itself
