"""docs/reference/metrics.md: every metric, by the process that exports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry

from redserve.telemetry.metrics.discovery import DiscoveryMetrics
from redserve.telemetry.metrics.encoder import EncoderMetrics
from redserve.telemetry.metrics.llm import LLMMetrics
from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve.telemetry.metrics.router import RouterMetrics
from redserve.telemetry.metrics.tracing import TracingMetrics
from redserve.telemetry.metrics.transport import TransportMetrics
from tools.docs.markdown import code, page, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECTIONS: Final[dict[str, tuple[str, Callable[[CollectorRegistry], object]]]] = {
    "Router": ("", RouterMetrics),
    "Router in a cluster": ("How it hears of replicas.", DiscoveryMetrics),
    "Encoder": ("", EncoderMetrics),
    "LLM engine": ("", LLMMetrics),
    "Transport": ("Of encoders and of LLM engines.", TransportMetrics),
    "Tracing": ("Of routers, encoders and LLM engines.", TracingMetrics),
    "Operator": ("", OperatorMetrics),
}
INTRODUCTION: Final = (
    "Every process serves them at `/metrics`: routers on their HTTP port; the others, and routers "
    "without HTTP (`spec.router.openAI: Disabled`), on a port of their own. Times are seconds, "
    "sizes are bytes. A histogram has the series `_bucket`, `_sum` and `_count`. Labels never hold "
    "anything that a client has sent.",
    "",
    "Whoever scrapes adds `namespace`, `redservice`, `pool` and `revision`, by which rules find "
    "the series of a service: in a cluster the PodMonitor does so, on one machine `redserve rules "
    "--scrape-config`. No process gives any of these four itself. Rules and alerts: "
    "[observability](../observability.md#rules-and-alerts).",
    "",
)


def metrics_page() -> str:
    """The page."""
    lines = list(INTRODUCTION)
    for title, (words, kind) in SECTIONS.items():
        lines += [f"## {title}", *([words, ""] if words else [])]
        lines += [*table(("metric", "kind", "labels", "what it is"), _rows(kind)), ""]
    return page("Metrics", *lines)


def _rows(kind: Callable[[CollectorRegistry], object]) -> Iterator[tuple[str, ...]]:
    for metric in vars(kind(CollectorRegistry())).values():
        name, labels = _described(metric)
        yield (
            code(f"{name}_total" if metric._type == "counter" else name),
            metric._type,
            ", ".join(map(code, labels)),
            metric._documentation,
        )


def _described(metric: Any) -> tuple[str, tuple[str, ...]]:
    # The library tells labels of series only, of which a metric with labels has none at first.
    return metric._name, tuple(metric._labelnames)
