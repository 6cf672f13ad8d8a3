"""`python -m redserve_llm` as a process: start, refuse, serve, drain, and exit codes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import torch

from redserve.modeling.checkpoint import fingerprint
from redserve.spec.settings import LLMSettings
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import llm_pb2_grpc
from redserve.wire.channel import open_channel
from redserve_llm.__main__ import _serve
from redserve_llm.fake import FakeRunner, fake_model
from redserve_llm.replica import LlmReplica
from redserve_llm.runner.interface import RunnerDead
from tests.llm.fake_encoder import FakeEncoder
from tests.llm.prompts import make_prompt
from tests.llm.service import SHAPE, Call, Question, question, vocabulary
from tests.support.tiny_checkpoints import refused_checkpoint, tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

START_TIMEOUT_S = 60.0


@asynccontextmanager
async def _process(*flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("REDSERVE_")},
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "REDSERVE_LLM_NAME": "llm-7",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "redserve_llm", *flags),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process) -> str:
    """The address, once it says that it is ready."""
    assert process.stderr is not None
    lines = []
    async with asyncio.timeout(START_TIMEOUT_S):
        async for line in process.stderr:
            lines.append(line.decode())
            found = re.search(r"\bready\b.*address=(\S+)", lines[-1])
            if found:
                return found[1]
    raise AssertionError("".join(lines))


@pytest.mark.timeout(120)
async def test_a_checkpoint_is_served_and_drained(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path = tiny_checkpoint("qwen3_vl", tmp_path)
    prompt = make_prompt(path, 1, 2, 8)
    flags = ("--model-uri", f"file://{path}", "--kv-cache-bytes", str(2 << 20))
    async with _process(*flags) as process:
        address = await _ready(process)
        channel = open_channel(address)
        stub = llm_pb2_grpc.LlmServiceStub(channel)
        info = await stub.GetModelInfo(pb.LlmServiceGetModelInfoRequest(), timeout=10)
        assert info.fingerprint == fingerprint(path)
        assert (info.family, info.num_layers, info.hidden_size) == ("qwen3_vl", 3, 64)
        assert info.max_model_length == info.kv_cache_tokens < 4096
        encoder = FakeEncoder(address)
        await encoder.server.start()
        asked = Question(prompt.request("r"), prompt.rows)
        call = Call(stub, asked.request)
        await call.until("admitted")
        for index in (1, 0):
            assert (await encoder.announce(asked, index)).accepted
        answer = await call.finish()
        assert tuple(answer.token_ids) == prompt.answer
        assert answer.finished is not None
        assert {bar.lane for bar in answer.finished.bars} == {"llm-7"}
        await encoder.close()
        await channel.close()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize("name", ["paligemma", "lfm2_vl"])
async def test_a_family_that_is_not_served_is_refused_by_its_config(
    tmp_path: Path, name: str
) -> None:
    path = refused_checkpoint(name, tmp_path)
    async with _process("--model-uri", f"file://{path}") as process:
        _, shown = await asyncio.wait_for(process.communicate(), START_TIMEOUT_S)
        lines = [line for line in shown.decode().splitlines() if line.strip()]
        assert process.returncode == 2
        assert len(lines) == 1, lines
        assert name in lines[0]
        assert "UNSUPPORTED_MODEL" in lines[0]


@pytest.mark.parametrize(
    ("file", "num_bytes", "words"),
    [
        ("model.safetensors", 100, "model.safetensors is damaged or incomplete: copy it again"),
        ("tokenizer.json", None, "the folder has no tokenizer"),
    ],
)
async def test_a_damaged_checkpoint_is_one_clear_sentence(
    tmp_path: Path, file: str, num_bytes: int | None, words: str
) -> None:
    path = tiny_checkpoint("qwen2_5_vl", tmp_path)
    content = (path / file).read_bytes()
    (path / file).unlink()
    if num_bytes is not None:
        (path / file).write_bytes(content[:num_bytes])
    async with _process("--model-uri", f"file://{path}") as process:
        _, shown = await asyncio.wait_for(process.communicate(), START_TIMEOUT_S)
        text = shown.decode()
        assert process.returncode == 2, text
        assert words in text
        assert "Traceback" not in text


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ((), "model_uri"),
        (("--model-uri", "file:///nowhere/at/all"), "MODEL_NOT_FOUND"),
        (("--token-budget", "0"), "--token-budget"),
    ],
)
async def test_a_wrong_start_is_one_clear_line(flags: tuple[str, ...], word: str) -> None:
    async with _process(*flags) as process:
        _, shown = await asyncio.wait_for(process.communicate(), START_TIMEOUT_S)
        lines = [line for line in shown.decode().splitlines() if line.strip()]
        assert process.returncode == 2
        assert len(lines) == 1, lines
        assert word in lines[0]


async def test_a_broken_engine_ends_the_process_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fake_model(vocabulary(), shape=SHAPE)
    assert isinstance(model.runner, FakeRunner)
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    addresses: list[str] = []

    def die(batch: Any) -> None:
        raise RunnerDead("the device is gone")

    model.runner.before_step = die
    warm_up = model.runner.warm_up

    def tell() -> None:
        warm_up()
        loop.call_soon_threadsafe(ready.set)

    model.runner.warm_up = tell  # type: ignore[method-assign]

    class Watched(LlmReplica):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            addresses.append(self.address)

    monkeypatch.setattr("redserve_llm.replica.LlmReplica", Watched)
    flags: dict[str, Any] = {}
    serving = asyncio.create_task(_serve(LLMSettings(**flags), model))
    await asyncio.wait_for(ready.wait(), 10)
    channel = open_channel(addresses[0])
    call = Call(llm_pb2_grpc.LlmServiceStub(channel), question("r").request)
    with pytest.raises(grpc.aio.AioRpcError, match="engine failed"):
        await call.finish()
    assert await asyncio.wait_for(serving, 20) == 1
    await channel.close()
