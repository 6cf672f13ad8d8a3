"""What can be said of the images without building them."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from redserve.spec import settings
from tools.kubernetes.images import IMAGES, ROOT, Image, build_command, main
from tools.requirements import requirements

if TYPE_CHECKING:
    from pathlib import Path

SERVICES = [image for image in IMAGES if image.name != "operator"]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PACKAGES = tomllib.loads(PYPROJECT)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


@dataclass
class Stage:
    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        (found,) = self.all(instruction)
        return found


def parse(image: Image) -> tuple[dict[str, str], dict[str, Stage]]:
    """Arguments before the first stage, and the stages; the last one is called `final`."""
    text = (ROOT / image.dockerfile).read_text()
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages.append(Stage(alias or "final", base))
        elif stages:
            stages[-1].steps.append((name, rest.strip()))
        else:
            key, _, value = rest.partition("=")
            arguments[key] = value
    return arguments, {stage.name: stage for stage in stages}


def final(image: Image) -> Stage:
    return parse(image)[1]["final"]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
class TestEveryImage:
    def test_stands_on_one_base_of_a_full_version(self, image: Image) -> None:
        arguments, stages = parse(image)
        assert re.fullmatch(
            r"docker\.io/library/python:3\.11\.\d+-slim-bookworm", arguments["PYTHON"]
        )
        assert arguments == parse(IMAGES[0])[0]
        assert {stage.base for stage in stages.values()} == {"${PYTHON}"}

    def test_runs_its_package_without_a_shell_as_a_numbered_user(self, image: Image) -> None:
        stage = final(image)
        package = f"redserve_{image.name}"
        assert json.loads(stage.one("ENTRYPOINT")) == ["python", "-m", package]
        assert (ROOT / image.folder / package).is_dir()
        assert stage.one("USER") == "65532:65532"
        assert stage.one("STOPSIGNAL") == "SIGTERM"
        names = [name for name, _ in stage.steps]
        assert names.index("USER") > names.index("COPY")

    def test_has_neither_shell_steps_nor_tools_of_the_build(self, image: Image) -> None:
        stage = final(image)
        assert stage.all("RUN") == []
        copies = [text.split() for text in stage.all("COPY")]
        assert {words[-1] for words in copies} <= {"/opt/redserve", "/models/demo-model"}

    def test_says_what_it_is(self, image: Image) -> None:
        label = final(image).one("LABEL")
        for name in ("title", "description", "licenses", "version", "revision"):
            assert f"org.opencontainers.image.{name}=" in label
        assert f'title="redserve-{image.name}"' in label

    def test_copies_what_the_wheel_is_made_of(self, image: Image) -> None:
        stage = parse(image)[1]["application"]
        copied = {word for text in stage.all("COPY") for word in text.split()[:-1]}
        for package in PACKAGES:
            assert package.split("/")[0] in copied
        metadata = tomllib.loads(PYPROJECT)["project"]
        assert {"pyproject.toml", metadata["readme"], *metadata["license-files"]} <= copied

    def test_copies_only_what_the_ignore_file_lets_in(self, image: Image) -> None:
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        admitted = {line.removeprefix("!") for line in lines if line.startswith("!")}
        for stage in parse(image)[1].values():
            for text in stage.all("COPY"):
                if text.startswith("--from"):
                    continue
                for source in text.split()[:-1]:
                    assert source in admitted
                    assert (ROOT / source).exists()

    def test_installs_the_packages_extra_with_tested_versions(self, image: Image) -> None:
        run = " ".join(parse(image)[1]["dependencies"].all("RUN"))
        extras = re.search(r"requirements\.py ([a-z ]+?) >", run)
        assert extras is not None
        assert image.name in extras[1].split()
        assert requirements(PYPROJECT, extras[1].split())
        assert "--constraint constraints.txt" in run
        assert "--no-cache-dir" in run
        torch = any(one.startswith("torch") for one in requirements(PYPROJECT, extras[1].split()))
        assert torch == (image.name in ("encoder", "llm"))

    def test_variables_are_settings(self, image: Image) -> None:
        kinds: dict[str, type[settings.Settings]] = {
            "router": settings.RouterSettings,
            "encoder": settings.EncoderSettings,
            "llm": settings.LLMSettings,
            "operator": settings.OperatorSettings,
        }
        fields = {
            f"REDSERVE_{image.name}_{name}".upper() for name in kinds[image.name].model_fields
        }
        assert set(re.findall(r"REDSERVE_\w+", final(image).one("ENV"))) <= fields


@pytest.mark.parametrize("image", SERVICES, ids=lambda image: image.name)
def test_services_have_the_demo_model_where_manifests_look(image: Image) -> None:
    assert "examples/demo-model /models/demo-model" in final(image).all("COPY")


def test_encoder_and_engine_share_their_large_layer() -> None:
    _, encoder = parse(IMAGES[2])
    _, llm = parse(IMAGES[3])
    assert encoder["dependencies"].steps == llm["dependencies"].steps
    assert encoder["application"].steps == llm["application"].steps
    # Nothing that differs comes before the large copy.
    assert encoder["final"].steps[0] == llm["final"].steps[0]
    assert encoder["final"].steps[0] == ("COPY", "--from=dependencies /opt/redserve /opt/redserve")


def test_every_dockerfile_is_an_image() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in ("operator", "services")
        for path in (ROOT / folder).rglob("Dockerfile*")
    }
    assert found == {image.dockerfile for image in IMAGES}


def test_requirements_of_an_unknown_extra() -> None:
    with pytest.raises(KeyError, match="gpu"):
        requirements(PYPROJECT, ["gpu"])


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_build_commands(builder: str) -> None:
    command = build_command(builder, IMAGES[1], "r/redserve-router:1", "abc", ["--no-cache"])
    assert command[:2] == [builder, "build"]
    assert "--file=services/router/Dockerfile" in command
    assert "--build-arg=REVISION=abc" in command
    assert command[-2:] == ["--no-cache", "."]
    assert ("--layers" in command) == (builder == "buildah")


def test_names_are_the_charts(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--builder=docker", "--print", "--registry=example.com/a/", "--tag=1.2.3"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    values = (ROOT / "helm/redserve/values.yaml").read_text()
    for image in IMAGES:
        assert f"--tag=example.com/a/redserve-{image.name}:1.2.3" in out
        assert f"name: redserve-{image.name}\n" in values


def test_no_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 2
