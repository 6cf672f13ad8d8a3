"""Real weights: what lands at the LLM replica is what the vision part computes alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from redserve.modeling.images import decode_image
from redserve.modeling.parts import load_vision
from redserve.modeling.processing import ItemProcessor
from redserve.wire.types import metadata_from_proto
from redserve_encoder.checkpoint_vision import CheckpointVision
from tests.encoder.support import bench, item, published
from tests.support.tiny_checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from redserve.modeling.parts import DtypeName

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def photographs() -> list[bytes]:
    """Pictures of several sizes with something to see."""
    random = np.random.default_rng(1)
    made = []
    for width, height in ((40, 24), (24, 40), (33, 57), (40, 24)):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        made.append(file.getvalue())
    return made


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("qwen2_5_vl", "float32"),
        ("qwen2_5_vl", "bfloat16"),
        ("qwen3_vl", "float32"),  # deepstack: several layers per row
        ("gemma3", "float32"),
        ("smolvlm", "float32"),  # several tiles per picture
    ],
)
async def test_rows_at_the_llm_replica_equal_the_vision_part_alone(
    checkpoints: Path, family: str, dtype: DtypeName
) -> None:
    path = tiny_checkpoint(family, checkpoints)
    vision = CheckpointVision.load(path, torch.device("cpu"), dtype, max_image_pixels=1_000_000)
    pictures = photographs()
    async with bench(vision, all_back=True) as b:
        described = [result.metadata for result in await b.describe(*pictures)]
        items = [
            item(i, data, send=False, rows=metadata.num_rows)
            for i, (data, metadata) in enumerate(zip(pictures, described, strict=True))
        ]
        events = await b.encode("r", items)
        assert sorted(published(events)) == [0, 1, 2, 3]
        await b.landed(*(("r", i) for i in range(4)))
        info = vision.info
        for announcement in b.llm.announced:
            index = announcement.request.tag.item_index
            rows = described[index].num_rows
            assert list(announcement.request.shape) == [info.num_layers, rows, info.hidden_size]

    part = load_vision(path, "cpu", dtype)
    processor = ItemProcessor.from_checkpoint(path)
    assert info.num_layers == 1 + part.num_deepstack
    for index, data in enumerate(pictures):
        processed = processor.process(decode_image(data))
        assert processed.metadata == metadata_from_proto(described[index])
        [alone] = part.encode([processed.pixels])
        raw = torch.frombuffer(bytearray(b.llm.landed["r", index]), dtype=DTYPES[dtype])
        landed = raw.view(alone.rows.shape)
        # Batches round differently from single pictures, in the last bits.
        tolerance = 1e-5 if dtype == "float32" else 5e-2
        torch.testing.assert_close(landed, alone.rows, rtol=tolerance, atol=tolerance)
    assert b.llm.landed["r", 0] != b.llm.landed["r", 3]


async def test_pictures_encoded_alone_are_equal_to_the_last_bit(checkpoints: Path) -> None:
    path = tiny_checkpoint("qwen2_5_vl", checkpoints)
    vision = CheckpointVision.load(path, torch.device("cpu"), "float32", max_image_pixels=1_000_000)
    data = photographs()[0]
    async with bench(vision) as b:
        [described] = await b.describe(data)
        items = [item(0, data, rows=described.metadata.num_rows)]
        await b.encode("r", items, idle=True)
        await b.landed(("r", 0))
    processor = ItemProcessor.from_checkpoint(path)
    [alone] = load_vision(path).encode([processor.process(decode_image(data)).pixels])
    assert b.llm.landed["r", 0] == alone.rows.numpy().tobytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
async def test_a_gpu_writes_into_the_pool_what_the_cpu_would(checkpoints: Path) -> None:
    path = tiny_checkpoint("qwen2_5_vl", checkpoints)
    vision = CheckpointVision.load(
        path, torch.device("cuda", 0), "float32", max_image_pixels=1_000_000
    )
    pictures = photographs()
    async with bench(vision) as b:
        described = await b.describe(*pictures)
        items = [
            item(i, data, rows=described[i].metadata.num_rows) for i, data in enumerate(pictures)
        ]
        assert len(published(await b.encode("r", items))) == len(pictures)
        await b.landed(*(("r", i) for i in range(len(pictures))))
    processor, part = ItemProcessor.from_checkpoint(path), load_vision(path)
    for index, data in enumerate(pictures):
        [alone] = part.encode([processor.process(decode_image(data)).pixels])
        landed = torch.frombuffer(bytearray(b.llm.landed["r", index]), dtype=torch.float32)
        torch.testing.assert_close(landed.view(alone.rows.shape), alone.rows, rtol=1e-2, atol=1e-2)
