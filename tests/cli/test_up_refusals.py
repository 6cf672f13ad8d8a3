"""What `redserve up` refuses, and that it says where to mend it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from redserve.cli.main import main
from tests.cli.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_wrong_settings_fail_as_a_whole(machine: Machine) -> None:
    machine.write(llm={"tokenBudget": 13, "minChunk": 1})
    done = machine.run("up", "--quiet", "-f", str(machine.manifest))
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == (
        f"redserve: {machine.place('tokenBudget: ')}: spec.llm.tokenBudget: llm-0 refused to "
        "start: token_budget: 13 tokens bring no luck [CONFIG_ERROR]"
    )
    assert machine.run("status").returncode == 2


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_a_port_in_use_starts_nothing(machine: Machine, door: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = machine.run("up", "-f", str(machine.manifest), f"--{door}-port", str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"redserve: --{door}-port: port {port} on 127.0.0.1 is in use; stop the process "
        f"that has it, or choose another with --{door}-port PORT (0 takes a free one)\n"
    )
    assert not (machine.folder / "run").exists()


def test_a_model_that_is_not_there(machine: Machine) -> None:
    machine.write(model={"uri": "file://nothing"})
    done = machine.run("up", "-f", str(machine.manifest))
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"redserve: {machine.place('uri: ')}: spec.model.uri: file://nothing: there is no folder"
    )


def test_a_data_path_that_a_process_cannot_make(machine: Machine) -> None:
    machine.write(transport={"type": "RDMA", "rdma": {"resourceName": "rdma/ib"}})
    done = machine.run("up", "--quiet", "-f", str(machine.manifest))
    assert done.returncode == 2
    place = f"redserve: {machine.place('type: ')}: spec.transport.type: "
    # Encoders and engine refuse at once; the first one that is heard is told.
    words = "refused to start: RDMA is not to be had: no device [CONFIG_ERROR]"
    last = done.stderr.splitlines()[-1]
    assert last in {f"{place}{name} {words}" for name in ("encoder-0", "llm-0")}
    assert machine.run("status").returncode == 2


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"encoder": {"replicas": 0}}, "replicas: ", "spec.encoder.replicas: nothing would answer"),
    ({"llm": {"device": "CUDA"}}, "device: ", "spec.llm.device: CUDA needs a GPU"),
    ({"engine": {"name": "VLLM"}}, "name: VLLM", "spec.engine.name: VLLM does not run"),
    ({"transport": {"type": "InProcess"}}, "type: ", "spec.transport.type: replicas are processes"),
    ({"model": {"uri": "s3://a/b"}}, "uri: ", "spec.model.uri: s3:// cannot be read"),
    ({"model": {"uri": "pvc://a/b"}}, "uri: ", "spec.model.uri: pvc:// can be read in a cluster"),
    ({"llm": {"parallelism": {"tensor": 2}}}, "parallelism:", "spec.llm.parallelism: a replica"),
    (
        {"router": {"http": {"port": 0, "host": "192.0.2.1"}}},
        "host: ",
        "spec.router.http.host: '192.0.2.1' is no address",
    ),
    (
        {"llm": {"scaling": {"minReplicas": 0, "maxReplicas": 1}}},
        "llm:",
        "spec.llm.replicas: nothing would answer",
    ),
]


@pytest.mark.parametrize(("spec", "where", "words"), WRONG, ids=[case[2] for case in WRONG])
def test_what_later_checks_find_has_a_place_too(
    machine: Machine,
    spec: dict[str, Any],
    where: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(machine.folder / "run"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine.write(**spec)
    assert main(["up", "-f", str(machine.manifest)]) == 2
    place = machine.place(where)
    assert capsys.readouterr().err.startswith(f"redserve: {place}: {words}")
    assert not (machine.folder / "run").exists()


def test_a_port_of_the_manifest_in_use_has_a_place(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        machine.write(router={"http": {"port": port}, "grpc": {"port": 0}})
        assert main(["up", "-f", str(machine.manifest)]) == 2
    words = f"redserve: {machine.place('port: ' + str(port))}: spec.router.http.port: port {port}"
    assert capsys.readouterr().err.startswith(words)
