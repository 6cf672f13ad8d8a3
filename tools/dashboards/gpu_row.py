"""What NVIDIA's DCGM exporter says of the devices under the service's pods.

Its pods are found whichever way it is scraped: with `honorLabels` the pod that uses a device is
`pod`, without it that is the exporter's own pod and the user is `exported_pod`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.dashboards.panels import Look, Query, lines
from tools.dashboards.promql import POOL, select
from tools.dashboards.row import Row

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

USED: Final = "DCGM_FI_DEV_FB_USED"
FREE: Final = "DCGM_FI_DEV_FB_FREE"
_LEGEND: Final = "{{pod}} GPU {{gpu}}"


def of_pods(metric: str) -> str:
    """Values of the devices of the service's pods, by `pod`, `Hostname` and `gpu`."""
    exported = f'{metric}{{exported_namespace="$namespace", exported_pod!=""}}'
    honored = f'{metric}{{namespace="$namespace", exported_pod=""}}'
    users = f'label_replace({exported}, "pod", "$1", "exported_pod", "(.+)")'
    ours = f"group by (pod) ({select('up', of=POOL)})"
    return f"max by (pod, Hostname, gpu) ({users} or {honored}) * on (pod) group_left () {ours}"


def gpu_row() -> Row:
    """The row."""
    memory = f"{of_pods(USED)} / ({of_pods(USED)} + {of_pods(FREE)})"
    return Row(
        "GPU",
        (
            _panel(
                "GPU utilisation",
                "Share of the time in which a kernel ran, however small.",
                "percent",
                of_pods("DCGM_FI_DEV_GPU_UTIL"),
            ),
            _panel(
                "Multiprocessors active",
                "Share of multiprocessors that had work; needs profiling metrics of DCGM.",
                "percentunit",
                of_pods("DCGM_FI_PROF_SM_ACTIVE"),
            ),
            _panel("GPU memory", "Share of device memory that is used.", "percentunit", memory),
            _panel(
                "Power",
                "Power draw of each device.",
                "watt",
                of_pods("DCGM_FI_DEV_POWER_USAGE"),
            ),
            _panel(
                "PCIe received",
                "Bytes per second that devices get over PCIe; embeddings are among them.",
                "Bps",
                of_pods("DCGM_FI_PROF_PCIE_RX_BYTES"),
            ),
            _panel(
                "XID",
                "Number of the last XID error of each device, 0 if there was none.",
                "none",
                of_pods("DCGM_FI_DEV_XID_ERRORS"),
            ),
        ),
        is_folded=True,
    )


def _panel(title: str, description: str, unit: str, expr: str) -> Builder[Panel]:
    return lines(
        title,
        f"{description} From NVIDIA's DCGM exporter with pods mapped; empty without it.",
        Look(unit),
        Query(expr, _LEGEND),
    )
