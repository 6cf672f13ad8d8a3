"""Every question of the dashboards is PromQL, in the eyes of promtool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from tests.observability.boards import Question, asked, choices, questions
from tests.observability.promtool import check_file, evaluate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = [pytest.mark.observability, pytest.mark.timeout(300)]


def as_rules(folder: Path, asked_for: Iterable[Question]) -> Path:
    path = folder / "questions.yaml"
    rules = [
        {"record": f"question:{number}", "expr": asked(one.expr)}
        for number, one in enumerate(asked_for)
    ]
    path.write_text(json.dumps({"groups": [{"name": "questions", "rules": rules}]}))
    return path


def test_they_can_be_read(tmp_path: Path) -> None:
    verdict = check_file(as_rules(tmp_path, [*questions(), *choices()]))
    assert verdict.ok, verdict.said
    assert f"SUCCESS: {len([*questions(), *choices()])} rules found" in verdict.said


def test_one_that_cannot_is_found(tmp_path: Path) -> None:
    wrong = Question("a", "b", "c", "sum(rate(up[$__rate_interval])")
    assert not check_file(as_rules(tmp_path, [wrong])).ok


CHOSEN: Final = {"namespace": "prod", "service": "demo"}
OURS: Final = 'namespace="prod", redservice="demo"'
POD: Final = f'up{{{OURS}, pool="llm", pod="demo-llm-0", revision="r1"}}'
DEVICE: Final = '{pod="demo-llm-0", Hostname="node-1", gpu="3"}'


def only(panel: str, board: str = "REDServe / Service") -> str:
    """The first question of a panel or of an annotation."""
    found = [one.expr for one in questions() if (one.board, one.panel) == (board, panel)]
    return asked(found[0], "5m", **CHOSEN)


def test_a_rollout_is_marked_once_and_a_young_service_is_none(tmp_path: Path) -> None:
    series = {
        f'up{{{OURS}, pool="router", revision="r1", instance="a"}}': "_x9 1x31 0x5 _x15",
        f'up{{{OURS}, pool="router", revision="r2", instance="b"}}': "_x29 0 1x30",
        'up{namespace="prod", redservice="other", revision="r9"}': "_x39 1x20",
    }
    found: dict[str, dict[str, float]] = {
        "5m": {},
        "12m": {},
        "29m": {},
        "32m": {'{revision="r2"}': 1},
        "40m": {},
        "50m": {},
    }
    verdict = evaluate(tmp_path, series, only("Rollouts"), found)
    assert verdict.ok, verdict.said


@pytest.mark.parametrize(
    "labels",
    [
        'namespace="prod", pod="demo-llm-0"',
        'namespace="gpu-operator", pod="dcgm-1", exported_namespace="prod", '
        'exported_pod="demo-llm-0"',
    ],
    ids=["labels honored", "labels exported"],
)
def test_devices_are_those_of_the_services_pods(tmp_path: Path, labels: str) -> None:
    other = labels.replace("demo-llm-0", "somebody-elses-0")
    nobody = 'namespace="gpu-operator", pod="dcgm-1"'

    def devices(metric: str, value: int) -> dict[str, str]:
        return {
            f'{metric}{{{of}, Hostname="node-1", gpu="{gpu}"}}': f"{value}x10"
            for of, gpu in ((labels, 3), (other, 4), (nobody, 5))
        }

    series = {POD: "1x10", **devices("DCGM_FI_DEV_GPU_UTIL", 40)}
    verdict = evaluate(tmp_path, series, only("GPU utilisation"), {"5m": {DEVICE: 40}})
    assert verdict.ok, verdict.said
    series |= {**devices("DCGM_FI_DEV_FB_USED", 60), **devices("DCGM_FI_DEV_FB_FREE", 20)}
    verdict = evaluate(tmp_path, series, only("GPU memory"), {"5m": {DEVICE: 0.75}})
    assert verdict.ok, verdict.said


def test_budgets_and_burn_rates(tmp_path: Path) -> None:
    series = {
        f'redserve:slo_attainment:ratio{{{OURS}, slo="ttft"}}': "0.995x10",
        f'redserve:slo_attainment:ratio{{{OURS}, slo="available"}}': "0.998x10",
        f'redserve:slo_errors:ratio_rate1h{{{OURS}, slo="ttft"}}': "0.2x10",
        f'redserve_slo_objective_ratio{{{OURS}, slo="ttft", instance="a"}}': "0.99x10",
        f'redserve_slo_objective_ratio{{{OURS}, slo="ttft", instance="b"}}': "0.99x10",
        f'redserve_slo_objective_ratio{{{OURS}, slo="available", instance="a"}}': "0.999x10",
    }
    left = only("Error budget left")
    verdict = evaluate(
        tmp_path, series, left, {"5m": {'{slo="ttft"}': 0.5, '{slo="available"}': -1}}
    )
    assert verdict.ok, verdict.said
    burn = only("Burn rate")
    verdict = evaluate(tmp_path, series, burn, {"5m": {'{slo="ttft"}': 20}})
    assert verdict.ok, verdict.said


def test_failures_are_a_share_of_all_and_zero_without_any(tmp_path: Path) -> None:
    def requests(code: str, step: int) -> dict[str, str]:
        name = f'redserve_requests_total{{{OURS}, pool="router", revision="r1", code="{code}"}}'
        return {name: f"0+{step}x20"}

    for board in ("REDServe / Service", "REDServe / All services"):
        expr = only("Failed requests", board)
        name = "{}" if board.endswith("/ Service") else f"{{{OURS}}}"
        well = {**requests("OK", 90), **requests("CANCELLED", 10)}
        verdict = evaluate(tmp_path, well, expr, {"10m": {name: 0}})
        assert verdict.ok, verdict.said
        ill = {**well, **requests("UNAVAILABLE", 60), **requests("INTERNAL", 40)}
        verdict = evaluate(tmp_path, ill, expr, {"10m": {name: 0.5}})
        assert verdict.ok, verdict.said
