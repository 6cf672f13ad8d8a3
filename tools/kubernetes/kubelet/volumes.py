"""Volumes of a pod, as folders of this machine."""

from __future__ import annotations

import base64
import shutil
from typing import TYPE_CHECKING, Any, Final

from tools.kubernetes.async_api import ApiError
from tools.kubernetes.kubelet.environment import Missing, field_value, resource_value

if TYPE_CHECKING:
    from pathlib import Path

    from tools.kubernetes.async_api import Api, JsonObject
    from tools.kubernetes.kubelet.environment import Place

_TOKEN_S: Final = 3600
_NOT_FOUND: Final = 404


class Objects:
    """What pods of one namespace read from the API server, with a node's rights."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._root = f"/api/v1/namespaces/{namespace}"

    async def config_map(self, name: str) -> dict[str, bytes] | None:
        """Contents of a ConfigMap; None where there is none."""
        if (found := await self._find(f"configmaps/{name}")) is None:
            return None
        binary = {k: base64.b64decode(v) for k, v in found.get("binaryData", {}).items()}
        return {**{k: v.encode() for k, v in found.get("data", {}).items()}, **binary}

    async def secret(self, name: str) -> dict[str, bytes] | None:
        """Contents of a Secret; None where there is none."""
        if (found := await self._find(f"secrets/{name}")) is None:
            return None
        return {k: base64.b64decode(v) for k, v in found.get("data", {}).items()}

    async def token(self, pod: JsonObject, audience: str, seconds: int) -> str:
        """A token of the pod's ServiceAccount that ends with the pod."""
        spec: dict[str, Any] = {
            "expirationSeconds": seconds,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            },
        }
        if audience:
            spec["audiences"] = [audience]
        account = pod["spec"].get("serviceAccountName", "default")
        answer = await self._api.call(
            "POST", f"{self._root}/serviceaccounts/{account}/token", {"spec": spec}
        )
        return str(answer["status"]["token"])

    async def _find(self, path: str) -> JsonObject | None:
        try:
            return await self._api.call("GET", f"{self._root}/{path}")
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise


async def make_volumes(
    pod: JsonObject, folder: Path, objects: Objects, place: Place
) -> dict[str, Path]:
    """Folders of all volumes, by the volumes' names; made anew below `folder`.

    Raises:
        Missing: Something that a volume shows is not there, or its kind is unknown here.
        ApiError: The API server refused.
    """
    shutil.rmtree(folder, ignore_errors=True)
    made = {}
    for volume in pod["spec"].get("volumes", []):
        path = folder / volume["name"]
        path.mkdir(parents=True)
        path.chmod(0o777)
        await _fill(volume, path, pod, objects, place)
        made[volume["name"]] = path
    return made


async def _fill(
    volume: JsonObject, path: Path, pod: JsonObject, objects: Objects, place: Place
) -> None:
    if "emptyDir" in volume:
        return
    if "projected" in volume:
        for source in volume["projected"]["sources"]:
            await _project(source, path, pod, objects, place)
        return
    if (source := volume.get("secret")) is not None:
        source = {**source, "name": source["secretName"]}
        await _project({"secret": source}, path, pod, objects, place)
        return
    for kind in ("configMap", "downwardAPI"):
        if kind in volume:
            await _project({kind: volume[kind]}, path, pod, objects, place)
            return
    kinds = sorted(set(volume) - {"name"})
    raise Missing(f"volume {volume['name']!r}: {kinds} is no kind that runs here")


async def _project(
    source: JsonObject, path: Path, pod: JsonObject, objects: Objects, place: Place
) -> None:
    if wanted := source.get("configMap"):
        _write(path, wanted, "configmap", await objects.config_map(wanted["name"]))
    elif wanted := source.get("secret"):
        _write(path, wanted, "secret", await objects.secret(wanted["name"]))
    elif wanted := source.get("serviceAccountToken"):
        seconds = wanted.get("expirationSeconds", _TOKEN_S)
        token = await objects.token(pod, wanted.get("audience", ""), seconds)
        _write_file(path / wanted["path"], token.encode())
    elif wanted := source.get("downwardAPI"):
        for item in wanted.get("items", []):
            _write_file(path / item["path"], _downward(item, pod, place).encode())
    else:
        raise Missing(f"projected volume: {sorted(source)} is no kind that runs here")


def _downward(item: JsonObject, pod: JsonObject, place: Place) -> str:
    if reference := item.get("fieldRef"):
        return field_value(reference["fieldPath"], pod, place)
    reference = item["resourceFieldRef"]
    containers = {c["name"]: c for c in pod["spec"]["containers"]}
    return resource_value(reference, containers[reference["containerName"]], place)


def _write(path: Path, wanted: JsonObject, kind: str, data: dict[str, bytes] | None) -> None:
    if data is None:
        if not wanted.get("optional"):
            raise Missing(f"{kind} {wanted['name']!r} not found")
        return
    for item in wanted.get("items") or [{"key": key, "path": key} for key in data]:
        if item["key"] in data:
            _write_file(path / item["path"], data[item["key"]])
        elif not wanted.get("optional"):
            raise Missing(f"{kind} {wanted['name']!r} has no key {item['key']!r}")


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
