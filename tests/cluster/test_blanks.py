"""Words of a podTemplate that mean the API server's default."""

from __future__ import annotations

from typing import Any

import pytest

from redserve.cluster.blanks import without_blanks
from tests.cluster.pods import main_of, pod_of
from tests.spec.manifests import service


def test_blank_words_are_left_out() -> None:
    main = {
        "name": "main",
        "imagePullPolicy": "",
        "terminationMessagePath": "",
        "readinessProbe": {"timeoutSeconds": 0, "initialDelaySeconds": 0},
        "lifecycle": {"postStart": {"httpGet": {"port": 1, "path": "", "scheme": ""}}},
    }
    patch = {"spec": {"schedulerName": "", "restartPolicy": "", "containers": [main]}}
    made = service(llm={"podTemplate": patch})
    assert {"schedulerName", "restartPolicy"}.isdisjoint(pod_of(made, "llm"))
    container = main_of(made, "llm")
    assert {"imagePullPolicy", "terminationMessagePath"}.isdisjoint(container)
    assert "timeoutSeconds" not in container["readinessProbe"]
    assert container["readinessProbe"]["initialDelaySeconds"] == 0
    assert container["lifecycle"]["postStart"]["httpGet"] == {"port": 1}


@pytest.mark.parametrize(
    "spec",
    [
        {"nodeSelector": {"protocol": ""}},
        {"terminationGracePeriodSeconds": 0},
        {"containers": [{"env": [{"name": "A", "value": ""}]}]},
        {"securityContext": {"runAsUser": 0}},
        {"volumes": [{"name": "a", "emptyDir": {}}]},
    ],
)
def test_empty_words_that_mean_something_stay(spec: Any) -> None:
    assert without_blanks(spec) == spec
