"""What can be said of the chart without helm: it fits the code and its own schema."""

from __future__ import annotations

import json

import pytest
import yaml

import redserve
from tests.helm.chart import CHART
from tools.docs.helm_values import helm_values_page, values

VALUES = (CHART / "values.yaml").read_text(encoding="utf-8")
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def test_the_chart_installs_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == redserve.__version__
    assert chart["apiVersion"] == "v2"


@pytest.mark.parametrize(
    "path", [path for path, _, comment in values(VALUES) if not comment] or ["none"]
)
def test_every_value_has_a_comment(path: str) -> None:
    assert path == "none", f"{path} has no comment above it in values.yaml"


def test_every_value_of_the_schema_has_a_default() -> None:
    page = helm_values_page()
    assert set(SCHEMA["properties"]) == set(yaml.safe_load(VALUES))
    for name, group in SCHEMA["properties"].items():
        for inner in group.get("properties", {}):
            assert f"`{name}.{inner}" in page, f"{name}.{inner}"
