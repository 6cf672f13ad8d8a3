"""promtool, and rules tested by it: series in, alerts out."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from redserve.observability import rule_file
from tools.kubernetes.programs import locate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from redserve.spec.service import RedService

NAMESPACE: Final = "prod"
_SEEN: Final = ("alertname", "slo", "pool", "missing")
"""Labels that tests speak of."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a service, and what is said of it.

    Attributes:
        series: Selector -> values in promtool's notation, one per `step`.
        firing: Time -> the alerts that fire then, each as `name` or `name label=value ...`.
        step: Between values, and between evaluations.
    """

    series: Mapping[str, str]
    firing: Mapping[str, set[str]]
    step: str = "1m"


@dataclass(slots=True)
class Verdict:
    """What promtool said."""

    ok: bool
    said: str = field(repr=False)


def check_rules(folder: Path, service: RedService, namespace: str | None = NAMESPACE) -> Verdict:
    """`promtool check rules`; warnings count."""
    return _promtool(
        "check", "rules", "--lint=all", "--lint-fatal", _write(folder, service, namespace)
    )


def check_file(path: Path) -> Verdict:
    """`promtool check rules` of a file that is there."""
    return _promtool("check", "rules", path)


def check_config(path: Path) -> Verdict:
    """`promtool check config`."""
    return _promtool("check", "config", path)


def run_scenario(folder: Path, service: RedService, scenario: Scenario) -> Verdict:
    """`promtool test rules`: every alert that fires must be expected, and the other way round."""
    _write(folder, service, NAMESPACE)
    chosen = ", ".join(_SEEN)
    expr = f'count by ({chosen}) (ALERTS{{alertstate="firing"}})'
    test = {
        "interval": scenario.step,
        "input_series": [
            {"series": name, "values": values} for name, values in scenario.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": expr,
                "eval_time": time,
                "exp_samples": [{"labels": _labels(alert), "value": 1} for alert in alerts],
            }
            for time, alerts in scenario.firing.items()
        ],
    }
    content = {
        "rule_files": ["demo.rules.yaml"],
        "evaluation_interval": scenario.step,
        "tests": [test],
    }
    path = folder / "scenario.yaml"
    path.write_text(json.dumps(content))
    return _promtool("test", "rules", path)


def tells_value(
    folder: Path,
    service: RedService,
    series: Mapping[str, str],
    time: str,
    labels: Mapping[str, str],
    value: str,
) -> Verdict:
    """Whether the text of an alert that fires has this value where the rule has its place.

    `labels` are its `alertname` and what tells it from others of that name.
    """
    _write(folder, service, NAMESPACE)
    chosen = dict(labels)
    name = chosen.pop("alertname")
    (rule,) = (
        rule
        for group in rule_file(service, namespace=NAMESPACE)["groups"]
        for rule in group["rules"]
        if rule.get("alert") == name and chosen.items() <= rule["labels"].items()
    )
    place = re.compile(r"\{\{ \$value [^}]*\}\}")
    told, num_places = place.subn(value, rule["annotations"]["description"])
    assert num_places == 1
    common = {"namespace": NAMESPACE, "redservice": service.name}
    one = {
        "exp_labels": common | rule["labels"],
        "exp_annotations": rule["annotations"] | {"description": told},
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": time, "alertname": name, "exp_alerts": [one]}],
    }
    content = {"rule_files": ["demo.rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    path = folder / "text.yaml"
    path.write_text(json.dumps(content))
    return _promtool("test", "rules", path)


def evaluate(
    folder: Path,
    series: Mapping[str, str],
    expr: str,
    found: Mapping[str, Mapping[str, float]],
    service: RedService | None = None,
) -> Verdict:
    """Whether an expression gives these values, to a thousandth: time -> series -> value.

    Values of `series` come minutely. With a service, what its rules record is there too.
    """
    if service is not None:
        _write(folder, service, NAMESPACE)
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"round({expr}, 0.001)",
                "eval_time": time,
                "exp_samples": [
                    {"labels": labels, "value": value} for labels, value in samples.items()
                ],
            }
            for time, samples in found.items()
        ],
    }
    path = folder / "expression.yaml"
    rule_files = [] if service is None else ["demo.rules.yaml"]
    content = {"rule_files": rule_files, "evaluation_interval": "1m", "tests": [test]}
    path.write_text(json.dumps(content))
    return _promtool("test", "rules", path)


def _labels(alert: str) -> str:
    name, *labels = alert.split()
    pairs = [f'alertname="{name}"', *(f'{k}="{v}"' for k, v in (p.split("=") for p in labels))]
    return f"{{{', '.join(pairs)}}}"


def _write(folder: Path, service: RedService, namespace: str | None) -> Path:
    path = folder / "demo.rules.yaml"
    made: dict[str, Any] = rule_file(service, namespace=namespace)
    path.write_text(json.dumps(made))  # which is YAML
    return path


def _promtool(*arguments: str | Path) -> Verdict:
    done = subprocess.run(
        [locate("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    return Verdict(done.returncode == 0, done.stdout + done.stderr)
