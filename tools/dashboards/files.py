"""Which dashboards there are, and which files are stale."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tools.dashboards.service import service_dashboard
from tools.dashboards.services import services_dashboard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

FOLDER: Final = "helm/redserve/files/dashboards"
DASHBOARDS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "redserve-service.json": service_dashboard,
    "redserve-services.json": services_dashboard,
}


def text_of(name: str) -> str:
    """A file as it should be."""
    return json.dumps(DASHBOARDS[name](), indent=1, ensure_ascii=False) + "\n"


def stale_files(root: Path) -> list[Path]:
    """Files below `root` that differ from what the code makes, are missing, or are no more."""
    folder = root / FOLDER
    stale = [folder / name for name in DASHBOARDS if _read(folder / name) != text_of(name)]
    return stale + [path for path in folder.glob("*.json") if path.name not in DASHBOARDS]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
