"""The process: what it refuses, what it serves, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from redserve.errors import ConfigError
from redserve.spec.settings import EncoderSettings, compute_environment
from redserve.v1 import encoder_pb2 as pb
from redserve.v1 import encoder_pb2_grpc
from redserve.wire.channel import open_channel
from redserve_encoder.arguments import parse
from tests.encoder.support import FakeLlm, item, picture, sha
from tests.support.tiny_checkpoints import refused_checkpoint, tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

START_TIMEOUT_S = 50.0


@asynccontextmanager
async def process(*flags: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, **compute_environment(1), **env}
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "redserve_encoder",
        *flags,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def output_of(*flags: str, **env: str) -> tuple[int, str, str]:
    async with process(*flags, **env) as running, asyncio.timeout(START_TIMEOUT_S):
        out, err = await running.communicate()
        assert running.returncode is not None
        return running.returncode, out.decode(), err.decode()


async def test_a_text_only_checkpoint_is_refused_with_one_clear_line(tmp_path: Path) -> None:
    path = refused_checkpoint("llama", tmp_path)
    code, out, err = await output_of(REDSERVE_ENCODER_MODEL_URI=f"file://{path}")
    assert code == 2
    assert out == ""
    [line] = err.splitlines()
    assert "llama" in line
    assert "text-only" in line


def without_vision(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    del config["vision_config"]
    (path / "config.json").write_text(json.dumps(config))


def torn(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:300_000])


def without_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (without_vision, "UNSUPPORTED_MODEL", "no vision_config in config.json"),
        (torn, "UNSUPPORTED_MODEL", "model.safetensors is damaged or incomplete: copy it again"),
        (without_tokenizer, "MODEL_NOT_FOUND", "the folder has no tokenizer"),
    ],
)
async def test_a_damaged_checkpoint_is_refused_with_one_clear_line(
    damage: Callable[[Path], None], reason: str, words: str, tmp_path: Path
) -> None:
    path = tiny_checkpoint("qwen2_5_vl", tmp_path)
    damage(path)
    code, _, err = await output_of("--model-uri", f"file://{path}", "--log-format", "json")
    assert code == 2
    [entry] = [json.loads(line) for line in err.splitlines() if "cannot start" in line]
    assert entry["reason"] == reason
    assert words in entry["why"]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model-uri", "file:///nowhere/at/all"], ["MODEL_NOT_FOUND", "/nowhere/at/all"]),
        ([], ["model_uri"]),
        (["--batch-rows", "none"], ["--batch-rows", "none"]),
        (["--model-uri", "gopher://x"], ["gopher://x", "file://"]),
    ],
)
async def test_what_cannot_start_says_why_in_one_line(flags: list[str], words: list[str]) -> None:
    code, out, err = await output_of(*flags, REDSERVE_ENCODER_LOG_FORMAT="json")
    assert code == 2
    assert out == ""
    [line] = err.splitlines()
    for word in words:
        assert word in line


async def test_help_names_every_setting() -> None:
    code, out, err = await output_of("--help")
    assert (code, err) == (0, "")
    for name in EncoderSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in out
        assert f"REDSERVE_ENCODER_{name.upper()}" in out


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDSERVE_ENCODER_BATCH_ROWS", "77")
    monkeypatch.setenv("REDSERVE_ENCODER_NAME", "from-env")
    assert parse([]).batch_rows == 77
    both = parse(["--batch-rows", "5", "--lease-ttl-s", "1.5"])
    assert (both.batch_rows, both.lease_ttl_s, both.name) == (5, 1.5, "from-env")
    with pytest.raises(ConfigError, match="--lease-ttl-s"):
        parse(["--lease-ttl-s", "-1"])
    monkeypatch.setenv("REDSERVE_ENCODER_BATCH_ROWS", "0")
    with pytest.raises(ConfigError, match="REDSERVE_ENCODER_BATCH_ROWS"):
        parse([])


async def ready_line(running: asyncio.subprocess.Process) -> dict[str, object]:
    assert running.stderr is not None
    async with asyncio.timeout(START_TIMEOUT_S):
        while line := await running.stderr.readline():
            entry: dict[str, object] = json.loads(line)  # nothing but logs, all of them JSON
            if entry["event"] == "ready":
                return entry
    raise AssertionError("the process ended before it was ready")


async def test_it_serves_and_sigterm_drains_it(tmp_path: Path) -> None:
    path = tiny_checkpoint("qwen2_5_vl", tmp_path)
    data = picture(40, 24)
    llm = FakeLlm()
    llm.pulls = False
    await llm.start()
    flags = ["--model-uri", f"file://{path}", "--log-format", "json", "--name", "encoder-7"]
    try:
        async with process(*flags) as running:
            ready = await ready_line(running)
            async with open_channel(str(ready["address"])) as channel:
                stub: Any = encoder_pb2_grpc.EncoderServiceStub(channel)
                info = await stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=20)
                assert (info.family, info.dtype) == ("qwen2_5_vl", "float32")
                asked = pb.Picture(content_hash=sha(data), data=data)
                described = await stub.Describe(pb.DescribeRequest(pictures=[asked]), timeout=20)
                rows = described.pictures[0].metadata.num_rows
                request = pb.EncodeRequest(
                    request_id="r",
                    generation=1,
                    destination=llm.address,
                    items=[item(0, data, rows=rows)],
                )
                call = stub.Encode(request, timeout=30)
                assert (await call.read()).published.bars[0].lane == "encoder-7"
                running.send_signal(signal.SIGTERM)
                # It waits for the LLM replica, and takes nothing new meanwhile.
                await refused(stub, request)
                assert running.returncode is None
                for announcement in llm.announced:
                    await llm.pull(announcement)
                assert not llm.errors
            out, err = await asyncio.wait_for(running.communicate(), START_TIMEOUT_S)
            assert running.returncode == 0
            assert out == b""
            events = [json.loads(line)["event"] for line in err.splitlines()]
            assert events == ["draining", "stopped"]
    finally:
        await llm.stop()


async def refused(stub: Any, request: pb.EncodeRequest) -> None:
    """Until new work is refused: the signal takes a moment to arrive."""

    async def ask() -> None:
        while True:
            await stub.Encode(request, timeout=30).read()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(ask(), 20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
