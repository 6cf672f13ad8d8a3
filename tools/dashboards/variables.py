"""What can be chosen above a dashboard, and what is drawn across its panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort

from tools.dashboards.panels import SOURCE
from tools.dashboards.promql import SERVICE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import VariableModel

MODEL: Final = "redserve_model_info"
"""Every router says which model it serves; a service serves one."""
_ROLLOUT: Final = f"group by (revision) (up{{{SERVICE}}} == 1)"
_NEW_FOR: Final = "5m"
_ALL: Final = VariableOption(selected=True, text=["All"], value=["$__all"])


def variables() -> Sequence[Builder[VariableModel]]:
    """Data source, namespace, model, service, revision and pool: each narrows those after it."""
    return (
        _source(),
        _values("namespace", "Namespace", MODEL, "namespace"),
        _values("model", "Model", f'{MODEL}{{namespace="$namespace"}}', "model", is_many=True),
        _values(
            "service",
            "Service",
            f'{MODEL}{{namespace="$namespace", model=~"$model"}}',
            "redservice",
        ),
        _values("revision", "Revision", f"up{{{SERVICE}}}", "revision", is_many=True),
        _values("pool", "Pool", f"up{{{SERVICE}}}", "pool", is_many=True),
    )


def choice_of_namespaces() -> Sequence[Builder[VariableModel]]:
    """Data source, and any number of namespaces."""
    return (_source(), _values("namespace", "Namespace", MODEL, "namespace", is_many=True))


def _source() -> DatasourceVariable:
    return DatasourceVariable("datasource").label("Data source").type("prometheus")


def _values(
    name: str, title: str, selector: str, label: str, *, is_many: bool = False
) -> QueryVariable:
    made = (
        QueryVariable(name)
        .label(title)
        .datasource(SOURCE)
        .query({"query": f"label_values({selector}, {label})", "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    return made.multi(True).include_all(True).all_value(".*").current(_ALL) if is_many else made


def marks() -> list[dict[str, Any]]:
    """Rollouts and alerts, as marks on every panel.

    The builder knows no titles of annotations, so these are plain data.
    """
    return [
        _annotation(
            "Rollouts",
            "purple",
            # There now, and not a while ago; a service that is new altogether is no rollout.
            f"({_ROLLOUT} unless {_offset(_ROLLOUT)}) and on () group ({_offset(_ROLLOUT)})",
            "revision {{revision}}",
        ),
        alert_marks(SERVICE),
    ]


def alert_marks(matchers: str, title: str = "") -> dict[str, Any]:
    """Alerts that fire, of the series that have these labels."""
    return _annotation(
        "Alerts",
        "red",
        f'ALERTS{{{matchers}, alertstate="firing"}}',
        f"{title} {{{{alertname}}}}".strip(),
        "{{severity}} {{slo}} {{pool}}",
    )


def _offset(expr: str) -> str:
    return expr.replace("}", f"}} offset {_NEW_FOR}", 1)


def _annotation(name: str, color: str, expr: str, title: str, text: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "datasource": SOURCE.to_json(),
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "step": "60s",
        "titleFormat": title,
        "textFormat": text,
        "useValueForTime": False,
    }
