"""What this environment has installed of the project's dependencies, as files."""

from __future__ import annotations

from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable


def closure(requirements: Iterable[str]) -> list[Distribution]:
    """The distributions that satisfy requirements, and what these require, sorted by name.

    Raises:
        PackageNotFoundError: Something is not installed.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        marker = requirement.marker
        if (name, extras) in seen or (marker is not None and not marker.evaluate({"extra": ""})):
            continue
        seen.add((name, extras))
        one = found.setdefault(name, distribution(name))
        for text in one.requires or []:
            inner = Requirement(text)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                inner.marker = None
                waiting.append(inner)
    return [found[name] for name in sorted(found)]


def files(distributions: Iterable[Distribution]) -> list[tuple[str, Path]]:
    """Path below the folder of packages, and file, for all that distributions brought there.

    Folders come before what is in them; programs in `bin` are left out.
    """
    found: dict[str, Path] = {}
    for one in distributions:
        root = Path(str(one.locate_file("")))
        for entry in one.files or []:
            path = str(entry)
            if path.startswith("..") or not (root / path).exists():
                continue
            for folder in reversed(Path(path).parents[:-1]):
                found.setdefault(str(folder), root / folder)
            found[path] = root / path
    return sorted(found.items())


def metadata_files(distributions: Iterable[Distribution]) -> list[tuple[str, Path]]:
    """The part of `files` by which pip sees what is installed: names and versions, few bytes."""
    return [
        (path, file) for path, file in files(distributions) if ".dist-info" in path.split("/")[0]
    ]
