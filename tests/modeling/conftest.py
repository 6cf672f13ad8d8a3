"""Tiny checkpoints of every family, built once per session, and pictures to show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_checkpoints import TINY_FAMILIES, tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = ((30, 50), (64, 64), (40, 20), (30, 50), (17, 90))
"""(height, width) of pictures that together hit tiles, grids, padding and repeated shapes."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a family's checkpoint."""
    directory = tmp_path_factory.mktemp("checkpoints")
    return lambda family: tiny_checkpoint(family, directory)


@pytest.fixture(params=sorted(TINY_FAMILIES))
def path(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Path:
    """Folder of each family's checkpoint in turn; its name is the family's."""
    return checkpoint(request.param)


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise, so that no two pictures look alike to a random tower."""
    noise = np.random.default_rng([seed, height, width])
    return Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))


def pictures() -> list[Image.Image]:
    return [picture(height, width, seed) for seed, (height, width) in enumerate(SIZES)]


def conversation(num_images: int) -> list[dict[str, Any]]:
    """System, user and assistant turns with images side by side and apart."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": "Look: "}]
    for index in range(num_images):
        parts.append({"type": "image"})
        if index % 2:
            parts.append({"type": "text", "text": f" number {index}, "})
    parts.append({"type": "text", "text": "what is it?"})
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Hëllo yourself"}]},
        {"role": "user", "content": parts},
    ]
