"""What Prometheus is told about a service: recording rules and alerts, made from its manifest.

Pure functions: neither clocks nor I/O. Rules find a service by the labels `redservice` and
`namespace`, which whoever scrapes it sets, together with `pool` and `revision`.
"""

from redserve.observability.alerts import ALERTS, RUNBOOKS, runbook_url
from redserve.observability.rules import rule_file, rule_groups

__all__ = ["ALERTS", "RUNBOOKS", "rule_file", "rule_groups", "runbook_url"]
