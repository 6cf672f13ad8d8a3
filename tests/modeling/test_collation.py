from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from redserve.modeling import collation
from redserve.modeling.collation import collate

if TYPE_CHECKING:
    from redserve.modeling.families import Collation


def _picture(height: int, width: int, fill: float) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.full((1, 3, height, width), fill),
        "image_sizes": torch.tensor([[height, width]]),
    }


def test_flat_joins_everything_in_order() -> None:
    items = [
        {"pixel_values": torch.full((n, 5), float(n)), "image_grid_thw": torch.tensor([[1, 1, n]])}
        for n in (3, 1, 2)
    ]
    (group,) = collate(items, "flat")
    assert group.indexes == (0, 1, 2)
    assert group.weights == (3, 1, 2)
    assert group.arguments["pixel_values"].shape == (6, 5)
    assert group.arguments["image_grid_thw"][:, 2].tolist() == [3, 1, 2]


def test_tiles_are_joined_without_padding() -> None:
    items = [
        {"pixel_values": torch.zeros(1, n, 3, 4, 4), "image_sizes": torch.tensor([[8, n]])}
        for n in (3, 5)
    ]
    (group,) = collate(items, "tiles")
    assert group.arguments["pixel_values"].shape == (8, 3, 4, 4)
    assert group.weights == (3, 5)
    assert items[0]["pixel_values"].dim() == 5, "the caller's items are not touched"


def test_samples_of_another_tile_size_go_apart() -> None:
    items = [{"pixel_values": torch.zeros(1, n, 3, e, e)} for n, e in ((2, 4), (1, 8), (3, 4))]
    groups = list(collate(items, "sample"))
    assert [group.indexes for group in groups] == [(0, 2), (1,)]
    assert groups[0].arguments["pixel_values"].shape == (1, 5, 3, 4, 4)


def test_padding_goes_right_and_below() -> None:
    items = [_picture(4, 8, 1.0), _picture(8, 4, 2.0)]
    (group,) = collate(items, "padded")
    pixels = group.arguments["pixel_values"]
    assert pixels.shape == (2, 3, 8, 8)
    for row, index in enumerate(group.indexes):
        height, width = group.arguments["image_sizes"][row].tolist()
        assert torch.equal(pixels[row, :, :height, :width], items[index]["pixel_values"][0])
        assert pixels[row].count_nonzero() == 3 * height * width


def test_padded_batches_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collation, "MAX_PADDED_CELLS", 200)
    edges = [(8, 8), (16, 16), (4, 4), (8, 8), (30, 30), (8, 8)]
    items = [_picture(height, width, 1.0) for height, width in edges]
    groups = list(collate(items, "padded"))
    assert sorted(index for group in groups for index in group.indexes) == list(range(6))
    for group in groups:
        count, _, height, width = group.arguments["pixel_values"].shape
        assert count == 1 or count * height * width <= 200
    assert max(len(group.indexes) for group in groups) > 1


@pytest.mark.parametrize("kind", ["flat", "tiles", "sample", "padded"])
def test_no_items_no_forward(kind: Collation) -> None:
    assert list(collate([], kind)) == []
