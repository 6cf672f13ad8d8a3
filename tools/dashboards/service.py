"""The dashboard of one service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.dashboards.assemble import assemble
from tools.dashboards.first_token_row import first_token_row
from tools.dashboards.gpu_row import gpu_row
from tools.dashboards.memory_row import memory_row
from tools.dashboards.operator_row import operator_row
from tools.dashboards.pool_row import pool_row
from tools.dashboards.slo_row import slo_row
from tools.dashboards.transport_row import transport_row
from tools.dashboards.user_row import user_row
from tools.dashboards.variables import marks, variables

if TYPE_CHECKING:
    from typing import Any

UID: Final = "redserve-service"


def service_dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    return assemble(
        UID,
        "REDServe / Service",
        "One service: its promises, what users feel, where the time to first token goes, and the "
        "pools behind it. Made by `make dashboards`.",
        variables(),
        marks(),
        (
            slo_row(),
            user_row(),
            first_token_row(),
            pool_row(),
            transport_row(),
            memory_row(),
            gpu_row(),
            operator_row(),
        ),
    )
