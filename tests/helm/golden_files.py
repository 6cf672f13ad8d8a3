"""What the chart renders, as files whose changes can be read in review.

`python -m tests.helm.golden_files` rewrites them. CustomResourceDefinitions and the content of
dashboards are left out: they are generated files themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.helm.chart import Manifest, template

GOLDEN = Path(__file__).parent / "golden"
WITHOUT_CRDS = {"crds": {"enabled": False}}
CASES: dict[str, dict[str, Any]] = {
    "default": WITHOUT_CRDS,
    "namespaced": {
        **WITHOUT_CRDS,
        "watchNamespaces": ["team-a", "team-b"],
        "rbac": {"aggregate": False},
    },
    "full": {
        **WITHOUT_CRDS,
        "images": {
            "registry": "registry.example.com/serving",
            "tag": "1.2.3",
            "pullPolicy": "IfNotPresent",
            "pullSecrets": ["registry"],
            "llm": {"digest": f"sha256:{'0' * 64}"},
        },
        "replicas": 2,
        "leaderElection": {"leaseDurationSeconds": 30, "renewSeconds": 10},
        "operator": {
            "debounceMilliseconds": 50,
            "logLevel": "debug",
            "httpPort": 9000,
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        },
        "serviceAccount": {"name": "serving", "annotations": {"example.com/role": "serving"}},
        "podAnnotations": {"example.com/note": "text"},
        "podLabels": {"tier": "control"},
        "commonLabels": {"team": "vision"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control", "operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "metrics": {"monitor": "PodMonitor", "interval": "15s", "labels": {"release": "main"}},
        "monitoring": {
            "labels": {"release": "main"},
            "runbooksURL": "https://runbooks.example.com/redserve",
        },
        "dashboards": {
            "label": "example.com/dashboard",
            "labelValue": "yes",
            "annotations": {"grafana_folder": "REDServe"},
            "namespace": "monitoring",
        },
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "egress": [{"ports": [{"port": 6443, "protocol": "TCP"}]}],
        },
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plain"}},
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text\n",
        ],
    },
}


def golden_text(case: str) -> str:
    """All objects of a case."""
    objects = [_shortened(one) for one in template(CASES[case])]
    return yaml.safe_dump_all(objects, sort_keys=False, width=100)


def _shortened(one: Manifest) -> Manifest:
    if not one["metadata"]["name"].endswith("-dashboard"):
        return one
    return {**one, "data": dict.fromkeys(one["data"], "the file")}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in CASES:
        (GOLDEN / f"{name}.yaml").write_text(golden_text(name), encoding="utf-8")
