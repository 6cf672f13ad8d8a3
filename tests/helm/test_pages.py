"""What the pages for people say to type exists: targets, flags, values, names."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import Any

import pytest
import yaml

from redserve.cli.main import make_parser
from redserve.cluster.names import pool_name
from redserve_operator import leading
from tests.helm.chart import CHART, one_of, template
from tests.spec.manifests import ROOT

PAGES = ("README.md", "docs/how-to/kubernetes.md", "docs/how-to/kubernetes-troubleshooting.md")
FENCE = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


def commands(page: str) -> list[str]:
    """Lines of the shell blocks, continued ones joined, and what stands between backquotes."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = "".join(FENCE.findall(text)).replace("\\\n", " ")
    return [*blocks.splitlines(), *INLINE.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))]


def words(command: str) -> list[str]:
    """As a shell splits it; a comment and what runs in the background end it."""
    try:
        return [word for word in shlex.split(command, comments=True) if word != "&"]
    except ValueError:  # code of another language
        return []


ALL = [(page, words(line)) for page in PAGES for line in commands(page)]


def redserve_commands() -> list[list[str]]:
    found = []
    for _, line in ALL:
        if len(line) > 1 and line[0] in ("redserve", ".venv/bin/redserve"):
            found.append(line[1:])
    return found


@pytest.mark.parametrize("arguments", redserve_commands(), ids=" ".join)
def test_command_lines_of_redserve(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def complain(_: argparse.ArgumentParser, message: str) -> None:
        raise AssertionError(message)

    monkeypatch.setattr(argparse.ArgumentParser, "error", complain)
    make_parser().parse_args(arguments)


def test_targets_of_make() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for _, line in ALL
        if line[:1] == ["make"]
        for word in line[1 : line.index("&&") if "&&" in line else None]
        if "=" not in word
    }
    assert named >= {"demo", "test", "images", "test-cluster"}
    assert named <= targets


def settings_of_helm() -> set[str]:
    """`path=value` of every `--set` of our chart."""
    found = set()
    for _, line in ALL:
        if "./helm/redserve" in line or line[:1] == ["--set"]:
            found |= {line[at + 1] for at, word in enumerate(line) if word == "--set"}
    return found


def test_values_of_the_chart() -> None:
    values: Any = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert "watchNamespaces={team-a,team-b}" in settings_of_helm()
    for setting in settings_of_helm():
        inner = values
        for part in setting.partition("=")[0].split("."):
            assert part in inner, setting
            inner = inner[part]


@pytest.mark.parametrize("page", PAGES)
def test_braces_and_brackets_are_kept_from_the_shell(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.findall(r"--set [^'\"`\n]*[{\[]", text) == []
    assert re.findall(r"jsonpath=[{]", text) == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w/.])(?:examples|helm|docs)/[\w./-]+\w", text):
        assert (ROOT / name).exists() or (ROOT / page).parent.joinpath(name).exists(), name


def test_the_autoscaler_is_pointed_at_a_pool_of_the_examples() -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    target = yaml.safe_load(block)["spec"]["scaleTargetRef"]["name"]
    for example in ("minimal", "complete"):
        manifest = yaml.safe_load((ROOT / f"examples/redservice-{example}.yaml").read_text())
        assert target == pool_name(manifest["metadata"]["name"], "encoder")
    assert f"redpool/{target}" in page


def test_events_that_only_the_leader_tells_are_on_the_page() -> None:
    source = (ROOT / "operator/redserve_operator/leading.py").read_text(encoding="utf-8")
    page = (ROOT / PAGES[2]).read_text(encoding="utf-8")
    told = re.findall(r'Event\("\w+", "(\w+)"', source)
    assert told
    assert all(f"`{reason}`" in page for reason in told)
    assert leading.TOLD_FAILURES == 3, "the page says so"
    assert leading.RETRIES.longest_s == 60, "the page says so"


@pytest.mark.cluster
@pytest.mark.parametrize("release", ["redserve", "second"])
def test_the_operators_deployment_has_the_name_on_the_page(release: str) -> None:
    deployment = one_of(template(release=release), "Deployment")["metadata"]["name"]
    page = (ROOT / PAGES[2]).read_text(encoding="utf-8")
    assert f"deployment/{deployment}`" in page or f"`{deployment}`" in page
