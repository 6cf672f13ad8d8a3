"""What rules are made, without Prometheus."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from redserve.cli.main import main
from redserve.cluster.scrape import cluster_scrape_config
from redserve.local.scrape import scrape_config
from redserve.local.state import hold
from redserve.observability import ALERTS, rule_groups, runbook_url
from redserve.observability.alerts import RUNBOOKS
from redserve.observability.series import duration
from redserve.observability.slo_rules import BURN_ALERTS, burn_limit, burns_of
from redserve.slo import Objective
from redserve.spec.manifest import load_manifest
from tests.metric_kinds import EVERY
from tests.observability.healthy import service
from tests.observability.states import STATE
from tests.spec.manifests import EXAMPLES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from redserve.spec.service import RedService

PAGES = ROOT / "docs/runbooks"
DAY_S = 86_400


def rules(made_for: RedService | None = None) -> list[dict[str, Any]]:
    groups = rule_groups(made_for or service(), namespace=None)
    return [rule for group in groups for rule in group["rules"]]


def alerts(made_for: RedService | None = None) -> list[dict[str, Any]]:
    return [rule for rule in rules(made_for) if "alert" in rule]


def exported() -> set[str]:
    """Every series name that a process can have."""
    registry = CollectorRegistry()
    kinds = ("Router", "Discovery", "Encoder", "LLM", "Transport")
    for kind in kinds:
        EVERY[kind](registry)
    made = {"up"}
    for family in registry.collect():
        if family.type == "histogram":
            made |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            made.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return made


def test_every_alert_can_be_had_and_has_its_page() -> None:
    assert {rule["alert"] for rule in alerts()} == set(ALERTS)
    assert {path.stem for path in PAGES.glob("RedServe*.md")} == set(ALERTS)
    index = (PAGES / "README.md").read_text()
    for rule in alerts():
        name = rule["alert"]
        assert rule["annotations"]["runbook_url"] == runbook_url(name) == f"{RUNBOOKS}/{name}.md"
        assert (PAGES / f"{name}.md").read_text().startswith(f"# {name}\n")
        assert f"| [{name}]({name}.md) | {rule['labels']['severity']} |" in index


def test_every_alert_says_what_it_is_about() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        notes = rule["annotations"]
        assert notes["summary"].startswith("demo: ")
        assert "\n" not in notes["summary"]
        assert notes["description"].endswith(".")


def test_rules_and_runbooks_speak_of_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = exported() | recorded
    for rule in rules():
        used = set(re.findall(r"([a-z][a-z0-9_:]*)\{", rule["expr"]))
        assert used
        assert used <= known, rule["expr"]
    for page in PAGES.glob("*.md"):
        used = set(re.findall(r"redserve_[a-z_]+", page.read_text()))
        assert used <= known, page.name


def test_every_selector_is_of_this_service() -> None:
    for rule in rules():
        for selector in re.findall(r"[a-z][a-z0-9_:]*(\{[^}]*\})", rule["expr"]):
            assert selector.startswith('{redservice="demo"')
    (first, *_) = rule_groups(service(), namespace="prod")
    assert '{namespace="prod", redservice="demo"' in first["rules"][0]["expr"]


def test_names_are_unique_where_they_must_be() -> None:
    groups = [group["name"] for group in rule_groups(service(), namespace=None)]
    assert groups == ["redserve-demo-slo", "redserve-demo-system"]
    keys = [
        (rule.get("record") or rule["alert"], rule["expr"], str(rule.get("labels")))
        for rule in rules()
    ]
    assert len(set(keys)) == len(keys)


def test_windows_are_those_of_the_alerts_and_of_the_promises() -> None:
    windows = [
        rule["record"].removeprefix("redserve:slo_errors:ratio_rate")
        for rule in rules()
        if "ratio_rate" in rule.get("record", "")
    ]
    assert windows == ["3m", "5m", "30m", "1h", "2h", "6h", "1d", "3d", "28d"]
    of_a_day = next(
        rule["expr"]
        for rule in alerts()
        if rule["alert"].endswith("Ticket") and 'slo="loose"' in rule["expr"]
    )
    assert "ratio_rate1d" in of_a_day
    assert "ratio_rate3d" not in of_a_day


def test_a_service_without_promises_has_system_alerts_only() -> None:
    (group,) = rule_groups(service(slos=[]), namespace=None)
    assert group["name"] == "redserve-demo-system"


@pytest.mark.parametrize(
    ("target", "factor", "limit"),
    [(0.99, 14.4, 14.4), (0.999, 6.0, 6.0), (0.9, 14.4, 9.1), (0.05, 3.0, 0.995 / 0.95)],
)
def test_limits_of_burn_rates(target: float, factor: float, limit: float) -> None:
    assert burn_limit(target, factor) == pytest.approx(limit)
    assert 1 - target <= burn_limit(target, factor) * (1 - target) < 1


def test_a_short_window_is_a_twelfth_of_the_long_one() -> None:
    for alert in BURN_ALERTS:
        for burn in alert.burns:
            assert burn.long_s == 12 * burn.short_s


@pytest.mark.parametrize(
    "window_s", [180, 1800, 3600, 86_399, DAY_S, 2 * DAY_S, 3 * DAY_S, 28 * DAY_S]
)
def test_no_promise_is_broken_for_ever_without_a_ticket(window_s: float) -> None:
    objective = Objective("x", "Availability", None, 0.99, window_s)
    _page, ticket = BURN_ALERTS
    burns = burns_of(objective, ticket)
    assert burns[-1].factor == 1.0
    assert all(burn.short_s < burn.long_s <= window_s or burn.short_s == 180 for burn in burns)
    assert [burn.factor for burn in burns[:-1]] == ([3.0] if window_s > DAY_S else [])


@pytest.mark.parametrize(
    ("seconds", "text"), [(300, "5m"), (3600, "1h"), (90, "90s"), (28 * 86_400, "28d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_scrape_configuration_has_the_labels_of_a_cluster() -> None:
    (job,) = scrape_config(STATE)["scrape_configs"]
    encoder, llm, router = job["static_configs"]
    assert encoder["targets"] == ["127.0.0.1:7011"]
    assert encoder["labels"] == {
        "namespace": "local",
        "redservice": "demo",
        "pool": "encoder",
        "revision": "local",
        "pod": "encoder-0",
    }
    assert [one["labels"]["pool"] for one in (llm, router)] == ["llm", "router"]


def test_the_command_prints_rules(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = ROOT / "examples/redservice-complete.yaml"
    assert main(["rules", "-f", str(manifest)]) == 0
    made = load_manifest(manifest)
    expected = rule_groups(made, namespace=made.metadata.namespace)
    assert yaml.safe_load(capsys.readouterr().out) == {"groups": expected}
    assert main(["rules", "-f", str(manifest), "--namespace", "other"]) == 0
    assert 'namespace="other"' in capsys.readouterr().out
    assert main(["rules", "-f", str(EXAMPLES / "nothing.yaml")]) == 2


def test_the_command_links_to_runbooks_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = str(ROOT / "examples/redservice-complete.yaml")
    assert main(["rules", "-f", manifest, "--runbooks-url", "https://books.example.com/a/"]) == 0
    assert (
        "runbook_url: https://books.example.com/a/RedServePoolEmpty.md" in capsys.readouterr().out
    )


def test_the_command_prints_a_scrape_configuration_for_a_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["rules", "--scrape-config", "--kubernetes"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == cluster_scrape_config()
    assert main(["rules", "--scrape-config", "--kubernetes", "--namespace", "team"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == cluster_scrape_config(["team"])
    assert main(["rules", "--kubernetes"]) == 2
    assert "--kubernetes: it goes with --scrape-config" in capsys.readouterr().err


def test_the_command_prints_a_scrape_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["rules", "--scrape-config"]) == 2
    assert "no service runs here" in capsys.readouterr().err
    with hold(tmp_path / "redserve", "demo") as folder:
        folder.write(STATE)
        assert main(["rules", "--scrape-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == scrape_config(STATE)


@pytest.mark.parametrize("own", [None, "team"])
@pytest.mark.parametrize("flags", [[], ["--namespace", "other"]])
def test_rules_and_scrape_configuration_agree_on_the_namespace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own: str | None,
    flags: list[str],
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    manifest = tmp_path / "redservice.yaml"
    raw = yaml.safe_load((EXAMPLES / "minimal.yaml").read_text())
    raw["metadata"] = {"name": "demo"} | ({"namespace": own} if own else {})
    manifest.write_text(yaml.safe_dump(raw))
    with hold(tmp_path / "redserve", "demo") as folder:
        folder.write(replace(STATE, namespace=own))
        assert main(["rules", "--scrape-config", *flags]) == 0
    (job,) = yaml.safe_load(capsys.readouterr().out)["scrape_configs"]
    said = {one["labels"]["namespace"] for one in job["static_configs"]}
    assert main(["rules", "-f", str(manifest), *flags]) == 0
    looked_for = set(re.findall(r'namespace="(\w+)"', capsys.readouterr().out))
    assert said == (looked_for or {"local"})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--scrape-config", "--kubernetes", "--service", "demo"], "is that of all its services"),
        (["--service", "demo"], "--service: it goes with --scrape-config"),
    ],
)
def test_the_command_refuses_a_service_that_it_would_not_look_at(
    capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert main(["rules", *flags]) == 2
    assert said in capsys.readouterr().err
