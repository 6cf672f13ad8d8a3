"""What an image's name stands for: a folder of this machine, a command, an environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """What an image would bring; the rest of its file system is this machine's, read-only.

    Attributes:
        entrypoint: Run where the container names no command.
        environment: Variables, below the container's own.
        paths: Folders and files at their place in the container, read-only.
        working_dir: Where the command starts.
    """

    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, Path] = field(default_factory=dict)
    working_dir: str = "/"


@dataclass(frozen=True, slots=True)
class Images:
    """All images that there are, by name without registry, tag and digest."""

    table: Mapping[str, Image]

    def find(self, reference: str) -> Image | None:
        """The image of a reference such as `registry.example.com/team/name:tag@sha256:…`."""
        return self.table.get(reference.split("@")[0].rsplit("/", 1)[-1].split(":")[0])
