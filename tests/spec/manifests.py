"""Manifests that tests start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redserve.spec.service import RedService

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = Path(__file__).parent / "examples"
MINIMAL: dict[str, Any] = {
    "apiVersion": "redserve.dev/v1alpha1",
    "kind": "RedService",
    "metadata": {"name": "demo"},
    "spec": {"model": {"uri": "file://model"}, "encoder": {}, "llm": {}},
}


def service(**spec: Any) -> RedService:
    """The minimal service with some structs of its spec replaced."""
    return RedService.model_validate({**MINIMAL, "spec": {**MINIMAL["spec"], **spec}})
