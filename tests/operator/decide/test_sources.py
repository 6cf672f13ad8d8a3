"""Another source than ours for a volume or a variable is taken away."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from redserve_operator.decide.objects import key_of, stamped
from redserve_operator.decide.plan import Apply, Patch
from redserve_operator.decide.sources import without_other_sources
from redserve_operator.decide.upkeep import keep

POD: dict[str, Any] = {
    "containers": [{"name": "main", "env": [{"name": "A", "value": ""}]}],
    "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "c"}}],
}


def deployment(kind: str = "Deployment", **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "d", "namespace": "ns", "uid": "u"},
        "spec": {"template": {"spec": copy.deepcopy(POD) | changes}},
    }


def edited(**changes: Any) -> dict[str, Any]:
    """As it was written, and then edited by somebody else."""
    made = copy.deepcopy(stamped(deployment()))
    made["spec"]["template"]["spec"] |= changes
    return made


HOST = [{"name": "tmp", "hostPath": {"path": "/var", "type": ""}}, POD["volumes"][1]]


@pytest.mark.parametrize(
    ("changes", "patch"),
    [
        (
            {"volumes": HOST},
            {"volumes": [{"name": "tmp", "emptyDir": {}, "hostPath": None}]},
        ),
        (
            {"containers": [{"name": "main", "env": [{"name": "A", "valueFrom": {"a": 1}}]}]},
            {
                "containers": [
                    {"name": "main", "env": [{"name": "A", "value": "", "valueFrom": None}]}
                ]
            },
        ),
    ],
)
def test_it_is_patched_away(changes: Any, patch: Any) -> None:
    want, have = deployment(), edited(**changes)
    action = keep(want, {key_of(have): have}, {})
    assert isinstance(action, Patch)
    assert action.patch["metadata"] == {"name": "d", "namespace": "ns", "uid": "u"}
    assert action.patch["spec"]["template"]["spec"] == patch
    assert action.manifest == stamped(want)


def test_what_an_apply_can_mend_is_applied() -> None:
    have = edited(volumes=POD["volumes"][:1])
    assert isinstance(keep(deployment(), {key_of(have): have}, {}), Apply)
    assert without_other_sources(deployment(), deployment(volumes=[])) is None
    assert without_other_sources(deployment("Job"), deployment("Job", volumes=HOST)) is None
    more = [*POD["volumes"], {"name": "theirs", "hostPath": {"path": "/x"}}]
    assert without_other_sources(deployment(), deployment(volumes=more)) is None
