from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from redserve.cli.main import main
from redserve.cli.render import as_yaml
from redserve.cluster.facts import ClusterFacts, Context, Images
from redserve.cluster.names import POOLS
from redserve.cluster.render import render
from redserve.spec.manifest import load_manifest
from redserve.spec.settings import OperatorSettings
from redserve.spec.yaml_scalars import KubernetesLoader
from tests.spec.manifests import EXAMPLES, ROOT, service

DEMO = str(ROOT / "examples/redservice.yaml")
Output = pytest.CaptureFixture[str]


def test_it_prints_what_the_operator_would_create(capsys: Output) -> None:
    assert main(["render", "-f", DEMO, "--kinds", "PodMonitor", "--llm-image", "mine"]) == 0
    objects = list(yaml.load_all(capsys.readouterr().out, KubernetesLoader))
    kinds = [one["kind"] for one in objects]
    assert kinds.count("Deployment") == kinds.count("RedPool") == 3
    assert "PodMonitor" in kinds
    sizes = {one["metadata"]["name"]: one["spec"].get("replicas") for one in objects[:3]}
    assert sizes == {"demo-encoder": 2, "demo-llm": 1, "demo-router": 1}
    images = {
        one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in objects
        if one["kind"] == "Deployment"
    }
    assert images == {
        "redserve/redserve-encoder:latest", "mine", "redserve/redserve-router:latest",
    }  # fmt: skip
    assert {one["metadata"]["namespace"] for one in objects} == {"default"}
    assert not any("ownerReferences" in one["metadata"] for one in objects)


def test_it_takes_what_the_operator_was_told(tmp_path: Path, capsys: Output) -> None:
    file = written(tmp_path, model={"uri": "hf://a/b", "revision": "main"})
    flags = ["--model-revision", "c0ffee", "--image-pull-policy", "Always"]
    flags += ["--image-pull-secret", "a", "--image-pull-secret", "b", "--api-server-port", "7443"]
    assert main(["render", "-f", file, *flags]) == 0
    objects = list(yaml.load_all(capsys.readouterr().out, KubernetesLoader))
    names = {pool: OperatorSettings.model_fields[f"{pool}_image"].default for pool in POOLS}
    images = Images(names["router"], names["encoder"], names["llm"], "Always", ("a", "b"))
    context = Context("default", images, ClusterFacts(), model_revision="c0ffee")
    revision = render(load_manifest(Path(file)), context).revision
    assert {f"demo-{pool}-{revision}" for pool in POOLS} == {
        one["metadata"]["name"] for one in objects if one["kind"] == "Deployment"
    }
    policy = next(one for one in objects if one["metadata"]["name"] == "demo-router"
                  and one["kind"] == "NetworkPolicy")  # fmt: skip
    assert {"protocol": "TCP", "port": 7443} in policy["spec"]["egress"][-2]["ports"]


def test_the_namespace(tmp_path: Path, capsys: Output) -> None:
    assert main(["render", "-f", DEMO, "--namespace", "team"]) == 0
    assert "namespace: team" in capsys.readouterr().out
    file = tmp_path / "redservice.yaml"
    file.write_text((EXAMPLES / "minimal.yaml").read_text().replace(
        "  name: qwen3-vl\n", "  name: a\n  namespace: own\n", 1
    ))  # fmt: skip
    assert main(["render", "-f", str(file)]) == 0
    assert "namespace: own" in capsys.readouterr().out
    assert main(["render", "-f", str(file), "--namespace", "team"]) == 2
    assert "--namespace: the manifest says 'own'" in capsys.readouterr().err


def test_what_cannot_be_kept_is_refused_with_its_place(capsys: Output) -> None:
    path = EXAMPLES / "complete.yaml"
    assert main(["render", "-f", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{path}:46:5: spec.router.tls: routers speak plain text" in captured.err
    assert f"{path}:28:5: spec.llm.parallelism: a replica runs on one device" in captured.err


def test_flags_that_make_no_sense(capsys: Output) -> None:
    with pytest.raises(SystemExit):
        main(["render", "-f", DEMO, "--kinds", "PodMonitors"])
    assert "there are PodMonitor, PrometheusRule, LeaderWorkerSet" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["render", "-f", DEMO, "--api-server-port", "70000"])
    assert "'70000' is no port" in capsys.readouterr().err
    assert main(["render", "-f", DEMO, "--kubernetes-minor", "30"]) == 2
    assert "Kubernetes 1.30 is too old" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["1234e567", "12345678", "0o17", "yes", "1_000", "null", "1:30"])
def test_texts_that_look_like_numbers_stay_texts(word: str) -> None:
    assert list(yaml.load_all(as_yaml([{"a": word}]), KubernetesLoader)) == [{"a": word}]


COMPLETE = str(EXAMPLES / "complete.yaml")


def test_validate_tells_what_no_place_can_keep(capsys: Output) -> None:
    assert main(["validate", "-f", COMPLETE]) == 2
    captured = capsys.readouterr()
    assert "is a valid" not in captured.out
    assert captured.err == (
        f"redserve: {COMPLETE}: cannot be kept by 'redserve up' nor by a cluster\n"
    )
    lines = captured.out.splitlines()
    here, there = "[not with 'redserve up']", "[not in a cluster: TlsUnsupported]"
    assert any(
        line.startswith(f"{COMPLETE}:46:5: spec.router.tls: ") and line.endswith(there)
        for line in lines
    )
    assert any(": spec.router.replicas: " in line and line.endswith(here) for line in lines)
    everywhere = "[not with 'redserve up'; not in a cluster: ParallelismUnsupported]"
    assert any(line.endswith(everywhere) for line in lines)
    assert main(["validate", "-f", DEMO]) == 0
    assert "cluster" not in capsys.readouterr().out


def written(folder: Path, **spec: Any) -> str:
    path = folder / "redservice.yaml"
    made = service(**spec)
    path.write_text(json.dumps(made.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return str(path)


def test_validate_for_one_place(tmp_path: Path, capsys: Output) -> None:
    only_there = written(tmp_path, router={"replicas": 2})
    assert main(["validate", "-f", only_there]) == 0
    assert "[not with 'redserve up']" in capsys.readouterr().out
    assert main(["validate", "-f", only_there, "--cluster"]) == 0
    assert "redserve up" not in capsys.readouterr().out
    assert main(["validate", "-f", only_there, "--local"]) == 2
    assert main(["validate", "-f", only_there, "--local", "--cluster"]) == 2
    assert "cannot be kept by 'redserve up'\n" in capsys.readouterr().err
    only_here = written(tmp_path, router={"http": {"port": 0}})
    assert main(["validate", "-f", only_here]) == 0
    assert "[not in a cluster: InvalidListener]" in capsys.readouterr().out
    assert main(["validate", "-f", only_here, "--local"]) == 0
    assert main(["validate", "-f", only_here, "--cluster"]) == 2
    captured = capsys.readouterr()
    assert "[not in a cluster: InvalidListener]" in captured.out
    assert "cannot be kept by a cluster\n" in captured.err
