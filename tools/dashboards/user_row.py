"""What users feel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.dashboards.panels import Look, Query, distribution, lines
from tools.dashboards.promql import QUANTILES, or_zero, quantile, rate, select
from tools.dashboards.row import Row

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

TTFT: Final = "redserve_time_to_first_token_seconds"
TPOT: Final = "redserve_time_per_output_token_seconds"
DURATION: Final = "redserve_request_duration_seconds"
REQUESTS: Final = "redserve_requests_total"
FAILED: Final = (
    'code=~"UNAVAILABLE|INTERNAL|UNKNOWN|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|DEADLINE_EXCEEDED"'
)


def user_row() -> Row:
    """The row."""
    return Row(
        "What users feel",
        (
            _quantiles("Time to first token", "From a request's arrival to its first token.", TTFT),
            _quantiles(
                "Time per output token",
                "Mean time between the tokens of a request, the first one left out; of requests "
                "that ended well.",
                TPOT,
            ),
            _quantiles("Whole answer", "From a request's arrival to its end.", DURATION),
            _spread("Time to first token, spread", TTFT),
            _spread("Time per output token, spread", TPOT),
            _spread("Whole answer, spread", DURATION),
            lines(
                "Requests",
                "Requests that ended, per second, by canonical gRPC code. CANCELLED are clients "
                "that left.",
                Look("reqps", width=6),
                Query(rate(REQUESTS, by="code"), "{{code}}"),
            ),
            lines(
                "Failed requests",
                "Share of requests that the service failed: its own errors, and deadlines that "
                "passed, whoever had set them. Not wrong requests, and not clients that left.",
                Look("percentunit", width=6, highest=1),
                Query(f"({or_zero(rate(REQUESTS, FAILED))}) / {rate(REQUESTS)}", "failed"),
            ),
            lines(
                "Tokens",
                "Tokens per second: sent to clients, and of prompts (image rows included).",
                Look("suffix: tok/s", width=6),
                Query(rate("redserve_output_tokens_total"), "output"),
                Query(rate("redserve_prompt_tokens_total"), "prompt"),
            ),
            lines(
                "Requests in flight",
                "Requests being served, and of these those that no engine has begun.",
                Look("short", width=6, decimals=0),
                Query(f"sum({select('redserve_inflight_requests')})", "in flight"),
                Query(f"sum({select('redserve_queue_requests')})", "waiting"),
            ),
        ),
    )


def _quantiles(title: str, description: str, metric: str) -> Builder[Panel]:
    return lines(
        title,
        f"{description} Quantiles of histograms are as exact as their buckets are narrow. Points "
        "are requests that were traced.",
        Look("s"),
        *(
            Query(quantile(share, metric), f"p{share * 100:g}", has_exemplars=True)
            for share in QUANTILES
        ),
    )


def _spread(title: str, metric: str) -> Builder[Panel]:
    return distribution(
        title,
        "Requests per second that fell into each bucket. Points are requests that were traced.",
        rate(f"{metric}_bucket", by="le"),
        has_exemplars=True,
    )
