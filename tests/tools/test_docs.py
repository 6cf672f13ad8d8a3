from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from redserve.modeling.families import FAMILIES, REFUSED
from redserve.spec.settings import EncoderSettings, LLMSettings, ProcessSettings, RouterSettings
from redserve.spec.ucx import PortRange, ucx_variables
from tests.metric_kinds import EVERY
from tools.docs import __main__ as docs
from tools.docs.configuration import configuration_page, own_fields, sections
from tools.docs.metrics import metrics_page
from tools.docs.models import models_page
from tools.docs.pages import PAGES, stale_pages
from tools.docs.settings import described, settings_page
from tools.docs.ucx import SECTIONS, ucx_page

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_are_fresh() -> None:
    assert stale_pages(ROOT) == [], "run 'make docs' and commit"


def test_every_field_is_on_the_page() -> None:
    page = configuration_page()
    for path, struct in sections():
        for name in own_fields(struct):
            assert f"| `{name}` |" in page, f"{path}.{name}"
    assert "| any" not in page


def test_links_lead_somewhere() -> None:
    page = configuration_page()
    titles = [line[3:].lower() for line in page.splitlines() if line.startswith("## ")]
    anchors = {
        "".join(c for c in title if c.isalnum() or c in " -_").replace(" ", "-") for title in titles
    }
    links = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert links <= anchors


@pytest.mark.parametrize("kind", [ProcessSettings, EncoderSettings, LLMSettings, RouterSettings])
def test_every_setting_is_described(kind: type[ProcessSettings]) -> None:
    own = set(kind.model_fields)
    if kind is not ProcessSettings:
        own -= set(ProcessSettings.model_fields)
    assert own == set(described(kind))


def test_every_setting_is_on_the_page() -> None:
    page = settings_page()
    for kind in (EncoderSettings, LLMSettings, RouterSettings):
        for name in set(kind.model_fields) - set(ProcessSettings.model_fields):
            assert f"{kind.model_config['env_prefix']}{name}".upper() in page


def test_every_variable_of_ucx_is_on_the_page() -> None:
    page = ucx_page()
    for kind in SECTIONS.values():
        for variable in ucx_variables(kind, net_devices="eth0", port_range=PortRange(1, 2)):
            assert f"| `{variable.name}` |" in page
            assert variable.reason in page


def test_every_family_is_on_the_page() -> None:
    page = models_page()
    assert all(f"| `{name}` |" in page for name in [*FAMILIES, *REFUSED])


def test_a_stale_page_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    assert docs.main(["--check"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == len(PAGES)
    assert not (tmp_path / "docs").exists()
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    page = tmp_path / "docs/reference/settings.md"
    page.write_text(page.read_text() + "more\n")
    capsys.readouterr()
    assert docs.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        "docs/reference/settings.md is stale: run 'make docs' and commit\n"
    )


def test_it_runs_as_a_module_without_torch() -> None:
    code = "import sys, tools.docs.pages; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_metric_is_on_the_page() -> None:
    page = metrics_page()
    for kind in EVERY.values():
        registry = CollectorRegistry()
        kind(registry)
        for family in registry.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert f"| `{name}` | {family.type} |" in page
            assert family.documentation in page
