"""What counts as a change of our fields, and what is others' business."""

from __future__ import annotations

from typing import Any

import pytest

from redserve_operator.decide.drift import drifted


def container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "main", **fields}]}}


SAME: dict[str, Any] = {
    "equal": ({"spec": {"a": 1}}, {"spec": {"a": 1}}),
    "a default beside ours": ({"spec": {"a": 1}}, {"spec": {"a": 1, "b": 2}}),
    "empty list and nothing": ({"spec": {"args": []}}, {"spec": {}}),
    "empty text and nothing": ({"spec": {"a": ""}}, {"spec": {}}),
    "false and nothing": ({"spec": {"a": False}}, {"spec": {}}),
    "nothing and zero": ({"spec": {"minReadySeconds": 0}}, {"spec": {}}),
    "less than the API server counts": (
        container(resources={"requests": {"cpu": "100u"}}),
        container(resources={"requests": {"cpu": "1m"}}),
    ),
    "a key of a rule that nobody wrote": (
        {"spec": {"rules": [{"action": "Ignore"}]}},
        {"spec": {"rules": [{"action": "Ignore", "onPodConditions": None}]}},
    ),
    "defaults of a volume's source": (
        {"spec": {"volumes": [{"name": "a", "configMap": {"name": "b"}}]}},
        {"spec": {"volumes": [{"name": "a", "configMap": {"name": "b", "defaultMode": 420}}]}},
    ),
    "memory in another unit": (
        container(resources={"limits": {"memory": "1024Mi"}}),
        container(resources={"limits": {"memory": "1Gi"}}),
    ),
    "cores as a fraction": (
        container(resources={"requests": {"cpu": 0.5}}),
        container(resources={"requests": {"cpu": "500m"}}),
    ),
    "devices as a number": (
        container(resources={"limits": {"nvidia.com/gpu": 1}}),
        container(resources={"limits": {"nvidia.com/gpu": "1"}}),
    ),
    "size of scratch space": (
        {"spec": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "1024Ki"}}]}},
        {"spec": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "1Mi"}}]}},
    ),
    "int or string": ({"spec": {"maxUnavailable": "1"}}, {"spec": {"maxUnavailable": 1}}),
    "another container": (
        {"spec": {"containers": [{"name": "main", "image": "a"}]}},
        {"spec": {"containers": [{"name": "sidecar"}, {"name": "main", "image": "a"}]}},
    ),
    "another variable": (
        container(env=[{"name": "A", "value": "1"}]),
        container(env=[{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]),
    ),
    "a port's default protocol": (
        container(ports=[{"containerPort": 1}]),
        container(ports=[{"containerPort": 1, "protocol": "TCP"}]),
    ),
    "a Service's node port": (
        {"spec": {"ports": [{"name": "grpc", "port": 1}]}},
        {"spec": {"ports": [{"name": "grpc", "port": 1, "protocol": "TCP", "nodePort": 3}]}},
    ),
    "another owner": (
        {"metadata": {"ownerReferences": [{"uid": "a"}]}},
        {"metadata": {"ownerReferences": [{"uid": "b"}, {"uid": "a"}]}},
    ),
    "another label": (
        {"metadata": {"labels": {"a": "1"}}},
        {"metadata": {"labels": {"a": "1", "b": "2"}}},
    ),
}
CHANGED: dict[str, Any] = {
    "a token that is not to be mounted": ({"automountServiceAccountToken": False}, {}),
    "a right that is not to be had": (
        container(securityContext={"allowPrivilegeEscalation": False}),
        container(securityContext={}),
    ),
    "a zero that means something": ({"spec": {"terminationGracePeriodSeconds": 0}}, {"spec": {}}),
    "another source of a volume": (
        {"spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]}},
        {"spec": {"volumes": [{"name": "tmp", "hostPath": {"path": "/var"}}]}},
    ),
    "a source beside ours": (
        {"spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]}},
        {"spec": {"volumes": [{"name": "tmp", "emptyDir": {}, "hostPath": {"path": "/var"}}]}},
    ),
    "scratch space in memory": (
        {"spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]}},
        {"spec": {"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}]}},
    ),
    "the other bound of a budget": (
        {"spec": {"maxUnavailable": 0}},
        {"spec": {"minAvailable": 0}},
    ),
    "a variable's value from elsewhere": (
        container(env=[{"name": "A", "value": ""}]),
        container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x"}}}]),
    ),
    "pods of all namespaces": (
        {"spec": {"ingress": [{"from": [{"podSelector": {"a": "1"}}]}]}},
        {"spec": {"ingress": [{"from": [{"podSelector": {"a": "1"}, "namespaceSelector": {}}]}]}},
    ),
    "all pods are not none": ({"spec": {"podSelector": {}}}, {"spec": {}}),
    "a selector with an empty value more": (
        {"spec": {"nodeSelector": {"a": "1"}}},
        {"spec": {"nodeSelector": {"a": "1", "b": ""}}},
    ),
    "another value": ({"spec": {"a": 1}}, {"spec": {"a": 2}}),
    "gone": ({"spec": {"a": 1}}, {"spec": {}}),
    "another type": ({"spec": {"a": {"b": 1}}}, {"spec": {"a": [1]}}),
    "a flag": ({"spec": {"a": True}}, {"spec": {"a": False}}),
    "a flag is no number": ({"spec": {"a": True}}, {"spec": {"a": 1}}),
    "less memory": (
        container(resources={"limits": {"memory": "1Gi"}}),
        container(resources={"limits": {"memory": "1G"}}),
    ),
    "texts are compared as texts": (
        container(env=[{"name": "SIZE", "value": "1024Mi"}]),
        container(env=[{"name": "SIZE", "value": "1Gi"}]),
    ),
    "an image": (container(image="a"), container(image="b")),
    "our container is gone": (container(image="a"), {"spec": {"containers": [{"name": "x"}]}}),
    "an argument more": (container(args=["a"]), container(args=["a", "b"])),
    "order of arguments": (container(args=["a", "b"]), container(args=["b", "a"])),
    "a wider selector": (
        {"spec": {"selector": {"a": "1"}}},
        {"spec": {"selector": {"a": "1", "b": "2"}}},
    ),
    "a peer more in a NetworkPolicy": (
        {"spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {"a": "1"}}}]}]}},
        {
            "spec": {
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"a": "1"}}}, {"podSelector": {}}]}
                ]
            }
        },
    ),
    "a port more in a NetworkPolicy": (
        {"spec": {"ingress": [{"ports": [{"port": 1, "protocol": "TCP"}]}]}},
        {"spec": {"ingress": [{"ports": [{"port": 1, "protocol": "TCP"}, {"port": 2}]}]}},
    ),
    "a right more in a Role": (
        {"rules": [{"verbs": ["get"]}]},
        {"rules": [{"verbs": ["get", "*"]}]},
    ),
    "a subject more in a RoleBinding": (
        {"subjects": [{"kind": "ServiceAccount", "name": "a"}]},
        {"subjects": [{"kind": "ServiceAccount", "name": "a"}, {"kind": "User", "name": "b"}]},
    ),
    "a number is not a list": ({"spec": {"a": 1}}, {"spec": {"a": [1]}}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same(case):
    assert not drifted(*SAME[case])


@pytest.mark.parametrize("case", CHANGED)
def test_changed(case):
    assert drifted(*CHANGED[case])
