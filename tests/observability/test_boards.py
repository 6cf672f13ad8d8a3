"""What can be said of the dashboards without Prometheus."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from redserve.observability.series import duration
from redserve.observability.slo_rules import BURN_ALERTS
from tests.observability.boards import (
    FOLDER,
    boards,
    choices,
    exported,
    names_in,
    panels,
    questions,
    recorded,
)
from tests.spec.manifests import ROOT
from tools.dashboards.__main__ import main
from tools.dashboards.assemble import all_panels
from tools.dashboards.files import DASHBOARDS, stale_files

BOARDS = boards()
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
DCGM = {
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_PROF_PCIE_RX_BYTES",
}
"""Of NVIDIA's exporter, by its list of counters; the last two are off unless profiling is on."""
ROWS = (
    "Service level objectives",
    "What users feel",
    "Where the time to first token goes",
    "Pools",
    "Transport",
    "Memory",
    "GPU",
    "Operator",
)


def known() -> set[str]:
    return exported() | recorded() | DCGM | {"up", "ALERTS"}


def test_they_are_what_the_code_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert stale_files(ROOT) == []
    assert main(["--check"]) == 0
    assert set(BOARDS) == set(DASHBOARDS)


def test_a_stale_one_is_found(tmp_path: Any) -> None:
    folder = tmp_path / "helm/redserve/files/dashboards"
    folder.mkdir(parents=True)
    for path in FOLDER.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    assert stale_files(tmp_path) == []
    (folder / "redserve-service.json").write_text("{}")
    (folder / "old.json").write_text("{}")
    assert {path.name for path in stale_files(tmp_path)} == {"redserve-service.json", "old.json"}


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_what_panels_need(name: str) -> None:
    board = BOARDS[name]
    ids = [panel["id"] for panel in all_panels(board)]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for _, panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for _, panel in panels(board):
        title = panel["title"]
        assert title
        assert panel["description"].endswith("."), title
        assert panel["datasource"] == SOURCE, title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["targets"], title
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert all(legends), title
        # Two queries may share a legend that names the series, never a plain word.
        plain = [legend for legend in legends if "{{" not in legend]
        assert len(set(plain)) == len(plain), title
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs), title
        assert all(target["datasource"] == SOURCE for target in panel["targets"]), title


@pytest.mark.parametrize("name", BOARDS)
def test_nothing_lies_on_anything(name: str) -> None:
    places = [panel["gridPos"] for panel in all_panels(BOARDS[name])]
    for one, other in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)


def panel_of(board: str, title: str) -> dict[str, Any]:
    (found,) = (panel for _, panel in panels(BOARDS[board]) if panel["title"] == title)
    return found


def test_burn_rates_are_drawn_over_the_windows_that_are_spoken_of() -> None:
    panel = panel_of("redserve-service.json", "Burn rate")
    told = re.findall(r"([0-9.]+) over (\d+[mhd])", panel["description"])
    drawn = [target["legendFormat"].split()[-1] for target in panel["targets"]]
    assert [window for _, window in told] == drawn
    burns = [burn for alert in BURN_ALERTS for burn in alert.burns]
    assert told == [(f"{burn.factor:g}", duration(burn.long_s)) for burn in burns]
    assert [step["value"] for step in steps_of(panel)[1:]] == [6.0, 14.4]


def steps_of(panel: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return found


def test_a_click_on_a_service_keeps_the_source_and_the_time() -> None:
    panel = panel_of("redserve-services.json", "Error budget left")
    (link,) = panel["fieldConfig"]["defaults"]["links"]
    path, _, query = link["url"].partition("?")
    assert path == f"/d/{BOARDS['redserve-service.json']['uid']}"
    words = query.split("&")
    assert "${__url_time_range}" in words
    kept = {word.partition("=")[0].removeprefix("var-") for word in words if "=" in word}
    assert kept == {"datasource", "namespace", "service"}
    for board in BOARDS.values():
        assert "datasource" in {one["name"] for one in board["templating"]["list"]}


def test_shares_are_shares() -> None:
    """Seconds per second, stacked to 100 %, would be drawn well and told wrongly."""
    for board in BOARDS.values():
        for _, panel in panels(board):
            custom = panel["fieldConfig"]["defaults"].get("custom", {})
            assert custom.get("stacking", {}).get("mode") != "percent", panel["title"]
    panel = panel_of("redserve-service.json", "Shares of the time to first token")
    assert panel["fieldConfig"]["defaults"]["unit"] == "percentunit"
    assert all(" / (" in target["expr"] for target in panel["targets"])


def test_dashboards_can_be_told_apart() -> None:
    for key in ("uid", "title"):
        values = [board[key] for board in BOARDS.values()]
        assert len(set(values)) == len(values)
    for name, board in BOARDS.items():
        assert board["uid"] == name.removesuffix(".json")
        assert board["tags"] == ["redserve"]


def test_the_service_has_all_rows() -> None:
    board = BOARDS["redserve-service.json"]
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    assert tuple(row["title"] for row in rows) == ROWS
    assert [row["title"] for row in rows if row["collapsed"]] == ["GPU", "Operator"]


def test_the_service_has_all_variables() -> None:
    board = BOARDS["redserve-service.json"]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "model", "service", "revision", "pool"]
    for variable in variables.values():
        if variable["type"] == "query":
            assert variable["datasource"] == SOURCE
    asked_for = {name for one in questions() for name in re.findall(r"\$(\w+)", one.expr)}
    chosen = {name for one in choices() for name in re.findall(r"\$(\w+)", one.expr)}
    assert asked_for - {"__rate_interval", "1"} == {"namespace", "service", "revision", "pool"}
    assert chosen == {"namespace", "model", "service"}


def test_every_metric_exists() -> None:
    for question in (*questions(), *choices()):
        names = names_in(question.expr)
        assert names, question
        assert names <= known(), question


def test_every_metric_of_users_and_pools_is_shown() -> None:
    """What is counted and never looked at should not be counted, or be named here."""
    shown = {name for one in questions() for name in names_in(one.expr)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() - shown}
    families -= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert families == {
        "redserve_slo_threshold_seconds",  # in the manifest, and part of alerts
        "redserve_preprocess_seconds",  # a part of the time to first token
        "redserve_prefill_seconds",
        "redserve_decode_seconds",
        "redserve_encode_preprocess_seconds",
        "redserve_encode_batch_rows",
        "redserve_encode_errors_total",  # failed images show as retries and outcomes
        "redserve_generated_tokens_total",  # the router's are what clients get
        "redserve_model_info",  # a variable
        "redserve_transport_check_gigabytes_per_second",
        "redserve_transport_check_failures_total",
        "redserve_discovery_last_sync_timestamp_seconds",
        "redserve_discovery_problems_total",
        "redserve_spans_lost_total",  # of tracing itself; the log tells of it
        "redserve_operator_amended_total",
        "redserve_operator_deletes_total",
        "redserve_operator_events_total",
        "redserve_operator_objects",
        "redserve_operator_unlisted_namespaces",
        "redserve_operator_namespaces_aside",
    }


def test_counters_are_shown_as_rates() -> None:
    """Lifetime averages and raw buckets say nothing of now."""
    for question in questions():
        for found in re.finditer(r"\w+_(total|bucket|sum|count)\b", question.expr):
            assert question.expr[: found.start()].endswith("rate("), (question, found[0])


def test_what_is_chosen_matters() -> None:
    for question in questions():
        if question.row == "Operator" and "redserve_operator" in question.expr:
            continue  # there is one for all services
        assert "$namespace" in question.expr, question
        if question.board == "REDServe / Service":
            assert "$service" in question.expr, question


def test_latencies_of_users_link_to_traces() -> None:
    linked = {one.panel for one in questions() if one.has_exemplars}
    plain = {"Time to first token", "Time per output token", "Whole answer"}
    assert linked == plain | {f"{title}, spread" for title in plain}


def test_rollouts_are_marked() -> None:
    marks = {mark["name"]: mark for mark in BOARDS["redserve-service.json"]["annotations"]["list"]}
    assert set(marks) == {"Rollouts", "Alerts"}
    assert marks["Rollouts"]["titleFormat"] == "revision {{revision}}"
    assert all(mark["datasource"] == SOURCE and mark["enable"] for mark in marks.values())
