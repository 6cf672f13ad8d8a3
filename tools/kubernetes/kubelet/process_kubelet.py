"""The process kubelet as a context manager, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Self, TypeVar

from redserve.errors import ConfigError, Unavailable
from tools.kubernetes.async_api import open_api
from tools.kubernetes.kubelet.node import Kubelet, NodeOptions
from tools.kubernetes.netns import pods_are_local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tools.kubernetes.control_plane import ControlPlane
    from tools.kubernetes.kubelet.container import Container
    from tools.kubernetes.kubelet.images import Images

_START_S = 30.0
T = TypeVar("T")


class ProcessKubelet:
    """A node as long as the context lives; at its end every container is killed.

    Args:
        control_plane: Of the cluster that the node joins.
        images: What there is to run.
        folder: For pods' files; owned by the kubelet, removed by the caller.
        options: What node it is.

    Raises:
        ConfigError: Pods could have no addresses here.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        images: Images,
        folder: Path,
        options: NodeOptions | None = None,
    ) -> None:
        if not pods_are_local():
            raise ConfigError(
                "a process kubelet needs addresses for its pods; "
                "run under: python -m tools.kubernetes.netns -- COMMAND"
            )
        self._options = options or NodeOptions()
        user = f"system:node:{self._options.name}"
        self._kubeconfig = control_plane.kubeconfig_for(user, ("system:nodes",))
        self._server = control_plane.server
        self._images = images
        self._folder = folder
        self._kubelet: Kubelet | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="process-kubelet")
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._is_up.wait(_START_S) or self._failure is not None:
            self.__exit__()
            raise Unavailable(f"the node did not come up: {self._failure!r}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()

    def pids(self) -> dict[tuple[str, str, str], int]:
        """Processes of all containers that run, by namespace, pod and container."""

        def collect() -> dict[tuple[str, str, str], int]:
            pods = self._kubelet.pods.values() if self._kubelet else ()
            return {
                (pod.metadata["namespace"], pod.metadata["name"], container.name): container.pid
                for pod in pods
                for container in pod.containers.values()
                if container.pid
            }

        return self._ask(collect)

    def kill(self, namespace: str, pod: str, container: str = "main") -> int:
        """SIGKILL for the process of a container, which restarts it; returns its id."""
        pid = self.pids()[namespace, pod, container]
        os.kill(pid, signal.SIGKILL)
        return pid

    def log(self, namespace: str, pod: str, container: str = "main") -> str:
        """What a container of a pod that is still here wrote."""

        def find() -> Container:
            pods = self._kubelet.pods.values() if self._kubelet else ()
            return next(
                found.containers[container]
                for found in pods
                if found.metadata["namespace"] == namespace and found.metadata["name"] == pod
            )

        return self._ask(find).log.read_text(errors="replace")

    def _ask(self, question: Callable[[], T]) -> T:
        async def answer() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(_START_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # told to the thread that waits
            self._failure = error
        finally:
            self._is_up.set()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        async with open_api(self._kubeconfig) as api:
            self._folder.mkdir(parents=True, exist_ok=True)
            kubelet = Kubelet(api, self._server, self._images, self._folder, self._options)
            self._kubelet = kubelet
            up = asyncio.create_task(kubelet.is_registered.wait())
            up.add_done_callback(lambda _: self._is_up.set())
            try:
                await kubelet.run()
            finally:
                up.cancel()
