"""Pods whose containers are short Python programs, for tests of the process kubelet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kubernetes.waiting import eventually
from tools.kubernetes.async_api import ApiError
from tools.kubernetes.kubelet.images import Image, Images

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.kubernetes.control_plane import ControlPlane

IMAGE = "registry.example.com/tests/python:3"
Pod = dict[str, Any]


def images(folder: Path) -> Images:
    """Python alone; `folder` is /models in its containers."""
    # Also where this environment lies in a folder that containers do not see, such as /tmp.
    here = {path: Path(path) for path in (sys.prefix, sys.base_prefix)}
    python = Image(
        entrypoint=(sys.executable, "-c", "print('the entrypoint')"),
        environment={"FROM_IMAGE": "yes", "PYTHONUNBUFFERED": "1"},
        paths={**here, "/models": folder},
        working_dir="/usr",
    )
    return Images({"python": python})


def container(program: str, *, name: str = "main", **fields: Any) -> dict[str, Any]:
    """A container that runs a Python program."""
    command = [sys.executable, "-c", program]
    return {"name": name, "image": IMAGE, "command": command, **fields}


class Client:
    """Pods of one namespace."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self._api = control_plane.api
        self.namespace = namespace
        self._root = f"/api/v1/namespaces/{namespace}"

    def create(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        body = {
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": list(containers), **spec},
        }
        self._api.post(f"{self._root}/pods", body)

    def make(self, kind: str, body: dict[str, Any]) -> None:
        self._api.post(f"{self._root}/{kind}", body)

    def delete(self, name: str, grace_s: int | None = None) -> None:
        query = "" if grace_s is None else f"?gracePeriodSeconds={grace_s}"
        self._api.delete(f"{self._root}/pods/{name}{query}")

    def get(self, name: str) -> Pod | None:
        try:
            found: Pod = self._api.get(f"{self._root}/pods/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def wait(self, name: str, condition: Callable[[Pod], object], *, timeout_s: float = 60) -> Pod:
        """The pod, once the condition holds for it."""

        def look() -> Pod | None:
            pod = self.get(name)
            assert pod is not None, f"{name} is gone"
            return pod if condition(pod) else None

        try:
            found = eventually(look, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.get(name)}") from None
        assert found is not None
        return found

    def wait_gone(self, name: str, *, timeout_s: float = 60) -> None:
        eventually(lambda: self.get(name) is None, timeout_s=timeout_s)

    def events(self, name: str) -> list[str]:
        """Reasons of the events about a pod."""
        selector = f"involvedObject.name={name}"
        found = self._api.get(f"{self._root}/events?fieldSelector={selector}")
        return [event["reason"] for event in found["items"]]


def phase(wanted: str) -> Callable[[Pod], bool]:
    return lambda pod: pod["status"].get("phase") == wanted


def is_ready(pod: Pod) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def first(pod: Pod) -> dict[str, Any]:
    """Status of the first container; empty while there is none."""
    statuses = pod["status"].get("containerStatuses") or [{}]
    status: dict[str, Any] = statuses[0]
    return status


def terminated(pod: Pod) -> dict[str, Any]:
    found: dict[str, Any] = first(pod)["state"]["terminated"]
    return found
