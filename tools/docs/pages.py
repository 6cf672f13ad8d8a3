"""Which pages are generated, and which of them are stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.docs.configuration import configuration_page
from tools.docs.crd_page import crd_page
from tools.docs.crds import redpool_definition, redservice_definition
from tools.docs.helm_values import helm_values_page
from tools.docs.metrics import metrics_page
from tools.docs.models import models_page
from tools.docs.settings import settings_page
from tools.docs.ucx import ucx_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "docs/reference/configuration.md": configuration_page,
    "docs/reference/crd.md": crd_page,
    "helm/redserve/files/crds/redpools.yaml": redpool_definition,
    "helm/redserve/files/crds/redservices.yaml": redservice_definition,
    "docs/reference/helm-values.md": helm_values_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/reference/settings.md": settings_page,
    "docs/reference/supported-models.md": models_page,
    "docs/reference/ucx.md": ucx_page,
}


def stale_pages(root: Path) -> list[str]:
    """Pages below `root` that differ from what the code says, or are missing."""
    return [path for path, make in PAGES.items() if _read(root / path) != make()]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
