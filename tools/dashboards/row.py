"""Panels that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a dashboard.

    Attributes:
        title: Of the row.
        panels: From left to right, line by line.
        is_folded: Whether it is shown closed at first, so that its queries are not asked.
    """

    title: str
    panels: tuple[Builder[Panel], ...]
    is_folded: bool = False
