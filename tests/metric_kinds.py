"""Every class of metrics that there is, found by looking."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, Final

from redserve.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

EVERY: Final[dict[str, Callable[[CollectorRegistry], Any]]] = {
    name.removesuffix("Metrics"): found
    for module in pkgutil.iter_modules(metrics.__path__, f"{metrics.__name__}.")
    for name, found in vars(importlib.import_module(module.name)).items()
    if name.endswith("Metrics") and found.__module__ == module.name
}
"""Classes by name, without the "Metrics" at its end."""
assert "Router" in EVERY
