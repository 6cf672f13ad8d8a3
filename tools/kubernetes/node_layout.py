"""An OCI image layout in a folder: images are read, given names, and given a layer from a folder.

Layers are not compressed: they go no further than to a containerd on the same disk.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_NAME: Final = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME: Final = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed layer in a layout.

    Attributes:
        digest: `sha256:…` of the tar, which is also its identity among unpacked layers.
        size: Bytes.
    """

    digest: str
    size: int


def write_layer(tar: Path, members: Iterable[tuple[str, Path]]) -> Layer:
    """Write a layer of files (path in the image, file here), owned by root, in this order."""
    with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as archive:
        for path, source in members:
            archive.add(source, arcname=path, recursive=False, filter=_owned_by_root)
    with tar.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Layer(f"sha256:{digest}", tar.stat().st_size)


class Layout:
    """A layout that other tools have written to.

    Args:
        folder: With `index.json` and `blobs/`; this object rewrites the former and adds to the
            latter.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def num_layers(self, name: str) -> int:
        """Layers of an image.

        Raises:
            KeyError: There is no image of this name.
        """
        return len(self._read(self._entry(name)["digest"])["layers"])

    def link_layer(self, tar: Path, layer: Layer) -> None:
        """Bring in a layer that `write_layer` wrote on the same disk; takes no room."""
        if not self._path(layer.digest).exists():
            self._path(layer.digest).hardlink_to(tar)

    def insert_layer(self, name: str, position: int, layer: Layer, why: str) -> None:
        """Put a layer of the layout into an image, before the one at `position`.

        Layers below are shared with other images as far as they are equal from the bottom, so a
        large layer belongs directly on the common base.

        Raises:
            KeyError: There is no image of this name.
        """
        entry = self._entry(name)
        manifest = self._read(entry["digest"])
        config = self._read(manifest["config"]["digest"])
        config["rootfs"]["diff_ids"].insert(position, layer.digest)
        # The history of an image counts steps that made no layer, too.
        steps = config.get("history", [])
        real = [at for at, step in enumerate(steps) if not step.get("empty_layer")]
        at = real[position] if position < len(real) else len(steps)
        steps.insert(at, {"created_by": why})
        manifest["config"] |= self._write(config)
        manifest["layers"].insert(
            position, {"mediaType": _LAYER, "digest": layer.digest, "size": layer.size}
        )
        self._update(name, self._write(manifest))

    def remove(self, name: str) -> None:
        """Forget an image; its blobs stay."""
        index = self._index()
        index["manifests"] = [
            entry for entry in index["manifests"] if entry.get("annotations", {}).get(_NAME) != name
        ]
        self._write_index(index)

    def rename(self, name: str, reference: str) -> None:
        """Give an image the full name that a containerd will know it by.

        Raises:
            KeyError: There is no image of this name.
        """
        self._update(name, {"annotations": {_NAME: name, _CONTAINERD_NAME: reference}})

    @property
    def _blobs(self) -> Path:
        return self.folder / "blobs/sha256"

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _index(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads((self.folder / "index.json").read_text()))

    def _entry(self, name: str) -> dict[str, Any]:
        for entry in self._index()["manifests"]:
            if entry.get("annotations", {}).get(_NAME) == name:
                return cast("dict[str, Any]", entry)
        raise KeyError(f"no image {name} in {self.folder}")

    def _update(self, name: str, changes: dict[str, Any]) -> None:
        self._entry(name)
        index = self._index()
        for entry in index["manifests"]:
            if entry.get("annotations", {}).get(_NAME) == name:
                entry |= changes
        self._write_index(index)

    def _write_index(self, index: dict[str, Any]) -> None:
        (self.folder / "index.json").write_text(json.dumps(index))

    def _read(self, digest: str) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self._path(digest).read_text()))

    def _write(self, content: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._path(digest).write_bytes(data)
        return {"digest": digest, "size": len(data)}


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
