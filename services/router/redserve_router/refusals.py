"""What is written down of requests that are none: no question could be made of what came."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from redserve.telemetry.log import get_logger
from redserve_router.validate import id_to_show

if TYPE_CHECKING:
    from redserve.errors import RedServeError
    from redserve.telemetry.metrics.router import RouterMetrics
    from redserve.telemetry.tracing import Origin

log = get_logger()

GENERATE: Final = "/redserve.v1.RouterService/Generate"


class Refusals:
    """Counts and logs them; nothing is known of them but what is wrong.

    Args:
        metrics: Where they are counted, as requests that ended.
    """

    def __init__(self, metrics: RouterMetrics) -> None:
        self._metrics = metrics

    def note_malformed(self, method: str, origin: Origin, error: RedServeError) -> None:
        """Write down bytes that are no message of a method, if it is the one of requests."""
        if method == GENERATE:
            self.note(replace(origin, request_id=id_to_show(origin.request_id)), error, None)

    def note(self, origin: Origin, error: RedServeError, field: str | None) -> None:
        """Write one down.

        Args:
            origin: Its ids.
            error: What is wrong with it.
            field: Where, in words of ours only.
        """
        self._metrics.requests.labels(error.grpc_code).inc()
        log.info(
            "request refused",
            code=error.grpc_code,
            reason=error.reason,
            **({"field": field} if field else {}),
            **origin.log_ids,
        )
