from __future__ import annotations

import copy

from redserve_operator.store.slim import same_content, slim
from tests.operator.samples import child


def test_bulk_that_nobody_reads_is_dropped_and_the_rest_stays() -> None:
    manifest = child("Deployment", "d", spec={"replicas": 2, "template": {"a": [1, {"b": None}]}})
    manifest["metadata"]["managedFields"] = [{"manager": "x"}]
    manifest["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "mine": "kept",
    }
    before = copy.deepcopy(manifest)
    kept = slim("Deployment", manifest)
    assert manifest == before
    del before["metadata"]["managedFields"]
    before["metadata"]["annotations"] = {"mine": "kept"}
    assert kept == before


def test_red_pools_keep_who_owns_what() -> None:
    manifest = child("RedPool", "p", spec={"replicas": 2})
    manifest["metadata"]["managedFields"] = [{"manager": "hpa"}]
    assert slim("RedPool", manifest)["metadata"]["managedFields"] == [{"manager": "hpa"}]


def test_copies_share_keys_and_short_strings() -> None:
    one = slim("Service", child("Service", "x", spec={"".join(["type", "x"]): "".join(["a", "b"])}))
    two = slim("Service", child("Service", "y", spec={"".join(["type", "x"]): "".join(["a", "b"])}))
    ((key_one, value_one),) = one["spec"].items()
    ((key_two, value_two),) = two["spec"].items()
    assert key_one is key_two
    assert value_one is value_two


def test_a_version_alone_is_no_news() -> None:
    one, two = child("Service", "x", 1, spec={"a": 1}), child("Service", "x", 2, spec={"a": 1})
    assert same_content(one, two)
    assert not same_content(one, child("Service", "x", 2, spec={"a": 2}))
    assert not same_content(one, child("Service", "x", 2))
    two["metadata"]["labels"]["more"] = "1"
    assert not same_content(one, two)
