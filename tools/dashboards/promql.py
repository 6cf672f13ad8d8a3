"""Selectors and expressions that panels share.

Series carry `namespace`, `redservice`, `pool` and `revision`, which whoever scrapes adds: the
PodMonitor in a cluster, `redserve rules --scrape-config` on one machine.
"""

from __future__ import annotations

from typing import Final

SERVICE: Final = 'namespace="$namespace", redservice="$service"'
"""Of the chosen service, in every revision."""
REVISION: Final = f'{SERVICE}, revision=~"$revision"'
"""Of the chosen revisions."""
POOL: Final = f'{REVISION}, pool=~"$pool"'
"""Of the chosen pools."""
INTERVAL: Final = "$__rate_interval"
QUANTILES: Final = (0.5, 0.95, 0.99)


def rate(metric: str, *matchers: str, of: str = REVISION, by: str = "") -> str:
    """Increase per second of a counter, added up."""
    return f"sum{_by(by)}(rate({select(metric, *matchers, of=of)}[{INTERVAL}]))"


def select(metric: str, *matchers: str, of: str = REVISION) -> str:
    """A selector."""
    return f"{metric}{{{', '.join([of, *matchers])}}}"


def quantile(share: float, metric: str, *matchers: str, of: str = REVISION, by: str = "") -> str:
    """A quantile of a histogram, over all processes."""
    labels = ", ".join(filter(None, (by, "le")))
    buckets = rate(f"{metric}_bucket", *matchers, of=of, by=labels)
    return f"histogram_quantile({share:g}, {buckets})"


def mean(metric: str, *matchers: str, of: str = REVISION, by: str = "") -> str:
    """Mean of what a histogram saw during the interval; nothing where it saw nothing."""
    total = rate(f"{metric}_sum", *matchers, of=of, by=by)
    count = rate(f"{metric}_count", *matchers, of=of, by=by)
    return f"{total} / ({count} > 0)"


def or_zero(expr: str) -> str:
    """0 where an expression without labels gives nothing: counters that never counted."""
    return f"({expr}) or vector(0)"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else " "
