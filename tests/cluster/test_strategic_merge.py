from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.cluster.strategic_merge import merge_pod_template
from redserve.errors import ConfigError
from tests.cluster.pods import pod_of
from tests.spec.manifests import service

BASE: dict[str, Any] = {
    "metadata": {"labels": {"a": "1"}, "annotations": {"b": "2"}},
    "spec": {
        "containers": [
            {
                "name": "main",
                "args": ["x"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"name": "grpc", "containerPort": 1}],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        "tolerations": [{"key": "a"}],
    },
}


def merged(patch: dict[str, Any]) -> Any:
    return merge_pod_template(BASE, patch, "here")


def main(patch: dict[str, Any]) -> Any:
    return merged({"spec": {"containers": [{"name": "main", **patch}]}})["spec"]["containers"][0]


def test_maps_merge() -> None:
    metadata = {"labels": {"c": "3"}, "annotations": {"b": "9"}}
    assert merged({"metadata": metadata})["metadata"] == {
        "labels": {"a": "1", "c": "3"},
        "annotations": {"b": "9"},
    }


def test_lists_with_a_key_merge_by_it() -> None:
    container = main(
        {
            "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
            "ports": [{"containerPort": 1, "protocol": "TCP"}, {"containerPort": 2}],
            "volumeMounts": [{"name": "mine", "mountPath": "/tmp"}],
        }
    )
    assert container["env"] == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "3"},
        {"name": "C", "value": "4"},
    ]
    assert container["ports"] == [
        {"name": "grpc", "containerPort": 1, "protocol": "TCP"},
        {"containerPort": 2},
    ]
    assert container["volumeMounts"] == [{"name": "mine", "mountPath": "/tmp"}]


def test_other_lists_are_replaced() -> None:
    assert main({"args": ["y"]})["args"] == ["y"]
    tolerations = merged({"spec": {"tolerations": [{"key": "b"}]}})["spec"]["tolerations"]
    assert tolerations == [{"key": "b"}]
    context = main({"securityContext": {"capabilities": {"drop": ["CHOWN"], "add": ["KILL"]}}})
    assert context["securityContext"]["capabilities"] == {"drop": ["CHOWN"], "add": ["KILL"]}


def test_a_volume_gets_another_source() -> None:
    patch = {"spec": {"volumes": [{"name": "tmp", "hostPath": {"path": "/"}}]}}
    assert merged(patch)["spec"]["volumes"] == [{"name": "tmp", "hostPath": {"path": "/"}}]


def test_a_sidecar_is_added_behind_main() -> None:
    names = merged({"spec": {"containers": [{"name": "side", "image": "i"}]}})["spec"]["containers"]
    assert [one["name"] for one in names] == ["main", "side"]


def test_null_and_delete_remove() -> None:
    assert "args" not in main({"args": None})
    assert main({"env": [{"name": "A", "$patch": "delete"}]})["env"] == [
        {"name": "B", "value": "2"}
    ]
    assert main({"securityContext": {"$patch": "delete"}})["securityContext"] == {}
    gone = merged({"spec": {"containers": [{"name": "none", "$patch": "delete"}]}})
    assert gone == BASE


def test_replace_takes_the_patch_only() -> None:
    assert main({"env": [{"$patch": "replace"}, {"name": "Z"}]})["env"] == [{"name": "Z"}]
    labels = merged({"metadata": {"$patch": "replace", "labels": {"z": "1"}}})["metadata"]
    assert labels == {"labels": {"z": "1"}}


@pytest.mark.parametrize(
    ("patch", "field", "sentence"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "here.spec.containers[0]", "'name'"),
        ({"spec": {"containers": ["x"]}}, "here.spec.containers[0]", "'name'"),
        ({"spec": {"containers": {}}}, "here.spec.containers", "a list, not a mapping"),
        ({"spec": []}, "here.spec", "a mapping, not a list"),
        ({"spec": {"$patch": "remove"}}, "here.spec", "write delete, replace or merge"),
        ({"spec": {"$retainKeys": []}}, "here.spec", "there is only $patch"),
        (
            {"spec": {"containers": [{"name": "main", "env": [{"value": "1"}]}]}},
            "here.spec.containers[0].env[0]",
            "'name'",
        ),
    ],
)
def test_what_cannot_be_merged(patch: dict[str, Any], field: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merged(patch)
    assert caught.value.field == field
    assert sentence in caught.value.message


def test_nothing_is_the_identity_and_nothing_is_shared() -> None:
    before = deepcopy(BASE)
    made = merged({})
    assert made == BASE
    made["spec"]["containers"][0]["env"].clear()
    made["metadata"]["labels"].clear()
    assert before == BASE


def test_what_is_merged_over_itself_stays_as_it_is() -> None:
    pod = {"spec": pod_of(service(transport={"placement": {"topologyKey": "rack"}}), "encoder")}
    assert merge_pod_template(pod, pod, "here") == pod


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "containers", "env", "$patch", "labels", "x", "mountPath"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional={"metadata": json, "spec": json}))
def test_any_patch_is_merged_or_refused_in_words(patch: dict[str, Any]) -> None:
    try:
        assert "$patch" not in merged(patch)
    except ConfigError as error:
        refused = error.field or ""
    else:
        refused = "here"
    assert refused.startswith("here")
