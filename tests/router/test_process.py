"""The router as a process: no torch, flags over environment, a clean drain."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from demo_model.config import build_image_processor, build_tokenizer, model_config
from redserve.errors import ConfigError
from redserve.slo import Objective
from redserve.v1.router_pb2_grpc import RouterServiceStub
from redserve.wire.channel import open_channel
from redserve_router.arguments import parse_settings
from tests.router.cluster import cluster, picture, question
from tests.router.fake_encoder import FakeEncoder
from tests.router.fake_llm import WORDS, FakeLlm


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with everything but real weights, which the router never reads."""
    folder = tmp_path_factory.mktemp("tiny")
    build_tokenizer().save_pretrained(folder)
    build_image_processor().save_pretrained(folder)
    model_config().save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@asynccontextmanager
async def router_process(*flags: str):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "redserve_router",
        "--log-format=json",
        *flags,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_logged(process, event: str) -> Any:
    """The first log line of this event."""
    async with asyncio.timeout(50):
        while line := await process.stderr.readline():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["event"] == event:
                return entry
    raise AssertionError(f"the router ended without saying {event!r}")


async def test_serves_and_drains(checkpoint):
    encoder, llm = FakeEncoder("encoder-0"), FakeLlm("llm-0")
    go, reached = asyncio.Event(), asyncio.Event()

    async def hold(n, _context):
        if n == 2:
            reached.set()
            await go.wait()

    llm.before_token = hold
    await encoder.start()
    await llm.start()
    flags = (
        f"--model-uri=file://{checkpoint}",
        "--model-name=tiny",
        "--http-port=0",
        f"--encoder-addresses={encoder.address}",
        f"--llm-addresses={llm.address}",
    )
    async with router_process(*flags) as process:
        listens = await until_logged(process, "router listens")
        async with open_channel(listens["grpc"]) as channel:
            stub = RouterServiceStub(channel)
            while True:
                serves = await until_logged(process, "replica serves")
                if serves["pool"] == "llm":
                    break
            stream = stub.Generate(question(picture()), timeout=30, wait_for_ready=True)
            await asyncio.wait_for(reached.wait(), 20)
            process.send_signal(signal.SIGTERM)
            await until_logged(process, "router drains")
            go.set()
            text = "".join([event.tokens.text async for event in stream])
            assert text == "".join(WORDS)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    await encoder.kill()
    await llm.kill()


async def test_port_in_use_is_one_clear_sentence(checkpoint):
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    flags = (f"--model-uri=file://{checkpoint}", f"--http-port={port}")
    async with router_process(*flags) as process:
        said = await until_logged(process, "cannot start")
        assert f"127.0.0.1:{port}" in said["why"]
        assert await process.wait() == 2
    server.close()


async def test_missing_checkpoint_is_one_clear_sentence(tmp_path):
    async with router_process(f"--model-uri=file://{tmp_path}/none") as process:
        said = await until_logged(process, "cannot start")
        assert said["reason"] == "MODEL_NOT_FOUND"
        assert await process.wait() == 2


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "no chat template: add chat_template.jinja to its folder"),
        ("{% for", "chat_template.jinja cannot be rendered"),
        ("{{ messages[0].role }}", "does not place images"),
    ],
)
async def test_a_chat_template_that_fails_every_chat_is_one_clear_sentence(
    checkpoint, tmp_path, template, words
):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    tokenizer = folder / "tokenizer_config.json"
    settings = json.loads(tokenizer.read_text())
    settings.pop("chat_template", None)
    tokenizer.write_text(json.dumps(settings))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    async with router_process(f"--model-uri=file://{folder}", "--http-port=0") as process:
        said = await until_logged(process, "cannot start")
        assert said["reason"] == "UNSUPPORTED_MODEL"
        assert words in said["why"]
        assert await process.wait() == 2


async def test_a_template_with_its_own_objections_and_no_weights_do(checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()
    (folder / "chat_template.jinja").write_text("{{ raise_exception('only on sundays') }}")
    async with router_process(f"--model-uri=file://{folder}", "--http-port=0") as process:
        said = await until_logged(process, "chat template not tried")
        assert "only on sundays" in said["why"]
        await until_logged(process, "router listens")


def test_the_process_never_imports_torch(checkpoint):
    script = (
        "import sys, pathlib, redserve_router.__main__ as m\n"
        "renderer = m.PromptRenderer.from_checkpoint(pathlib.Path(sys.argv[1]))\n"
        "text = renderer.render([{'role': 'user', 'content': 'what colour is it?'}])\n"
        "assert renderer.expand_and_tokenize(text).token_ids\n"
        "assert sys.modules['torch'] is None, 'torch is blocked'\n"
        "assert not any(name.startswith('torch.') for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert "PyTorch" not in done.stderr


def test_flags_override_the_environment(monkeypatch):
    monkeypatch.setenv("REDSERVE_ROUTER_MODEL_NAME", "from-env")
    monkeypatch.setenv("REDSERVE_ROUTER_MAX_IMAGES", "7")
    monkeypatch.setenv("REDSERVE_ROUTER_LLM_ADDRESSES", json.dumps(["a:1"]))
    settings = parse_settings(["--model-name=flag", "--llm-addresses=b:1,c:2", "--url-fetch"])
    assert settings.model_name == "flag"
    assert settings.max_images == 7
    assert settings.llm_addresses == ("b:1", "c:2")
    assert settings.url_fetch
    assert not parse_settings(["--no-url-fetch"]).url_fetch
    assert parse_settings([]).llm_addresses == ("a:1",)


def test_bad_flag_names_itself():
    with pytest.raises(ConfigError) as caught:
        parse_settings(["--max-images=many"])
    assert caught.value.field == "--max-images"


PROMISE = {
    "name": "up", "indicator": "Availability", "threshold_s": None, "target": 0.99,
    "window_s": 60.0,
}  # fmt: skip


def test_promises_are_json(monkeypatch):
    monkeypatch.setenv("REDSERVE_ROUTER_SLOS", json.dumps([PROMISE]))
    (promise,) = parse_settings([]).slos
    assert promise == Objective("up", "Availability", None, 0.99, 60.0, 1.0)
    (other,) = parse_settings([f"--slos={json.dumps([{**PROMISE, 'name': 'other'}])}"]).slos
    assert other.name == "other"
    with pytest.raises(ConfigError, match=r"target of up must be above 0 and below 1"):
        parse_settings([f"--slos={json.dumps([{**PROMISE, 'target': 1.0}])}"])
    with pytest.raises(SystemExit):
        parse_settings(["--slos=up"])


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_settings(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for flag in ("--encoder-addresses", "--llm-grace-s", "--url-allowed-hosts", "REDSERVE_ROUTER_"):
        assert flag in shown


async def test_ports_are_free_again_after_a_stop():
    async with cluster() as c:
        http = c.http
        async with httpx.AsyncClient(base_url=http) as client:
            assert (await client.get("/health")).status_code == 200
    async with httpx.AsyncClient(base_url=http) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("/health")
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert left == []
