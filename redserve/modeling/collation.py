"""Which items share one forward of the vision side, and its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from redserve.modeling.families import Collation

MAX_PADDED_CELLS = 2**21
"""Pixels (height times width, padded) that share one Pixtral forward.

Its tower masks attention over all patches of the batch, so the cost grows with the square of the
batch: small pictures gain from company, large ones lose.
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Items of one forward.

    Attributes:
        indexes: Their places among the items that were given.
        arguments: Keyword arguments of `get_image_features`.
        weights: Tiles of each item, for vision sides that return tiles without saying whose.
    """

    indexes: tuple[int, ...]
    arguments: dict[str, Tensor]
    weights: tuple[int, ...]


def collate(items: Sequence[Mapping[str, Tensor]], collation: Collation) -> Iterator[Group]:
    """Partition the items into forwards; every item is in exactly one group."""
    if collation == "padded":
        yield from _padded(items)
        return
    by_shape: dict[object, list[int]] = {}
    for index, item in enumerate(items):
        by_shape.setdefault(_shape_key(item, collation), []).append(index)
    for indexes in by_shape.values():
        chosen = [items[index] for index in indexes]
        dim = 1 if collation == "sample" else 0
        if collation == "tiles":
            # 5-D means padding to the item with most tiles; 4-D is what the model makes of it.
            chosen = [{**item, "pixel_values": item["pixel_values"][0]} for item in chosen]
        arguments = {key: torch.cat([item[key] for item in chosen], dim) for key in chosen[0]}
        weights = tuple(item["pixel_values"].shape[dim] for item in chosen)
        yield Group(tuple(indexes), arguments, weights)


def _shape_key(item: Mapping[str, Tensor], collation: Collation) -> object:
    """Items with equal keys can be concatenated."""
    drop = 2 if collation in ("sample", "tiles") else 1
    return tuple(sorted((key, tuple(value.shape[drop:])) for key, value in item.items()))


def _padded(items: Sequence[Mapping[str, Tensor]]) -> Iterator[Group]:
    """Similar sizes together, as long as the padded batch stays small."""
    order = sorted(range(len(items)), key=lambda i: tuple(items[i]["pixel_values"].shape[-2:]))
    batch: list[int] = []
    height = width = 0
    for index in order:
        h, w = items[index]["pixel_values"].shape[-2:]
        new_height, new_width = max(height, h), max(width, w)
        if batch and (len(batch) + 1) * new_height * new_width > MAX_PADDED_CELLS:
            yield _pad(items, batch, height, width)
            batch, new_height, new_width = [], h, w
        batch.append(index)
        height, width = new_height, new_width
    if batch:
        yield _pad(items, batch, height, width)


def _pad(
    items: Sequence[Mapping[str, Tensor]], indexes: list[int], height: int, width: int
) -> Group:
    pixels = []
    for index in indexes:
        value = items[index]["pixel_values"]
        right, below = width - value.shape[-1], height - value.shape[-2]
        pixels.append(F.pad(value, (0, right, 0, below)))
    arguments = {
        "pixel_values": torch.cat(pixels),
        "image_sizes": torch.cat([items[index]["image_sizes"] for index in indexes]),
    }
    return Group(tuple(indexes), arguments, (1,) * len(indexes))
