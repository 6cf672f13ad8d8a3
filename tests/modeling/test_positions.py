from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from redserve.errors import InternalError
from redserve.modeling.parts import load_language
from redserve.modeling.positions import prompt_positions
from redserve.modeling.processing import ItemProcessor
from tests.modeling.conftest import conversation, pictures
from tests.support.tiny_checkpoints import reference_inputs, whole_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_positions_equal_those_the_whole_model_uses(path: Path) -> None:
    part, images = load_language(path), pictures()
    inputs = reference_inputs(path, conversation(len(images)), images)
    processor = ItemProcessor.from_checkpoint(path)
    grids = [processor.process(image).metadata.grid for image in images]
    ids = inputs["input_ids"][0].tolist()
    positions, delta = prompt_positions(part, ids, grids)
    if not part.family.mrope:
        assert torch.equal(positions, torch.arange(len(ids))[None])
        assert delta == 0
        return
    expected, deltas = whole_model(path).base_model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
    )
    assert torch.equal(positions, expected[:, 0])
    assert delta == int(deltas)
    assert delta < 0, "a picture takes fewer positions than rows"
    assert positions.max() + 1 == len(ids) + delta


def test_text_alone_counts_up_on_every_axis(path: Path) -> None:
    part = load_language(path)
    positions, delta = prompt_positions(part, [5, 6, 7])
    axes = 3 if part.family.mrope else 1
    assert torch.equal(positions, torch.arange(3).expand(axes, 3))
    assert delta == 0


@pytest.mark.parametrize("grids", [[(1, 4, 4)], [(1, 4, 4)] * 3])
def test_grids_that_do_not_match_the_prompt(
    grids: list[tuple[int, ...]], checkpoint: Callable[[str], Path]
) -> None:
    part = load_language(checkpoint("qwen2_5_vl"))
    row = part.image_token_id
    ids = [9, *[row] * 4, 9, *[row] * 4, 9]
    assert prompt_positions(part, ids, [(1, 4, 4)] * 2)[0].shape == (3, len(ids))
    with pytest.raises(InternalError, match="grids"):
        prompt_positions(part, ids, grids)
