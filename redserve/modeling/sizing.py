"""What an image processor would say of a picture, from its size alone and in microseconds.

A processor's `replace_image_token` reads a few numbers of what preprocessing returns. Each
function here computes these numbers for one image processor class by that class's own size rules,
so that the prompt's spans are known before any pixel is decoded. Whatever has no rule here, or has
settings that the rule does not cover, is answered by preprocessing a blank picture instead.

Tests compare every rule with real preprocessing over many sizes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from types import ModuleType

Numbers = dict[str, Any]
"""The part of a processor's image inputs that its `replace_image_token` reads."""

_Rule = Callable[[Any, int, int, Mapping[str, Any]], Numbers | None]


def numbers_for_size(
    processor: Any, height: int, width: int, images_kwargs: Mapping[str, Any]
) -> Numbers | None:
    """Numbers of a picture of this size, or None if only preprocessing can tell.

    Raises:
        ValueError: The image processor refuses the size.
    """
    rule = _RULES.get(type(processor.image_processor).__name__)
    return None if rule is None else rule(processor, height, width, images_kwargs)


def _qwen_grid(processor: Any, height: int, width: int, _: Mapping[str, Any]) -> Numbers | None:
    images = processor.image_processor
    if not images.do_resize:
        return None
    resized = _smart_resize(images)(
        height,
        width,
        factor=images.patch_size * images.merge_size,
        min_pixels=images.size["shortest_edge"],
        max_pixels=images.size["longest_edge"],
    )
    return _grid(images, resized)


def _glm_grid(processor: Any, height: int, width: int, _: Mapping[str, Any]) -> Numbers | None:
    images = processor.image_processor
    if not images.do_resize:
        return None
    resized = _smart_resize(images)(
        num_frames=images.temporal_patch_size,
        height=height,
        width=width,
        temporal_factor=images.temporal_patch_size,
        factor=images.patch_size * images.merge_size,
        min_pixels=images.size["shortest_edge"],
        max_pixels=images.size["longest_edge"],
    )
    return _grid(images, resized)


def _smart_resize(images: Any) -> Callable[..., tuple[int, int]]:
    rule: Callable[..., tuple[int, int]] = _module_of(images).smart_resize
    return rule


def _module_of(images: Any) -> ModuleType:
    return importlib.import_module(type(images).__module__)


def _grid(images: Any, resized: tuple[int, int]) -> Numbers:
    grid = [1, resized[0] // images.patch_size, resized[1] // images.patch_size]
    return {"image_grid_thw": np.array([grid], dtype=np.int64)}


def _one_crop(processor: Any, height: int, width: int, _: Mapping[str, Any]) -> Numbers | None:
    edges = _cropped_edges(processor.image_processor)
    return None if edges is None else {"pixel_values": [_blank(edges)]}


def _anyres(processor: Any, height: int, width: int, _: Mapping[str, Any]) -> Numbers | None:
    edges = _cropped_edges(processor.image_processor)
    if edges is None:
        return None
    return {
        "pixel_values": [[_blank(edges)]],
        "image_sizes": [[height, width]],
        "batch_num_images": [1],
    }


def _cropped_edges(images: Any) -> tuple[int, int] | None:
    """(height, width) that every tile ends with, if the settings fix it."""
    if getattr(images, "do_center_crop", False):
        return images.crop_size["height"], images.crop_size["width"]
    if images.do_resize and images.size.get("height") and images.size.get("width"):
        return images.size["height"], images.size["width"]
    return None


def _blank(edges: tuple[int, int]) -> Any:
    """A picture that has a shape and no memory."""
    return np.broadcast_to(np.float32(0), (3, *edges))


def _rows_cols(
    processor: Any, height: int, width: int, images_kwargs: Mapping[str, Any]
) -> Numbers | None:
    images = processor.image_processor
    if not images.do_resize:
        return None
    _, rows, cols = images.get_number_of_image_patches(height, width, dict(images_kwargs))
    return {"rows": [[rows]], "cols": [[cols]]}


def _tiles(
    processor: Any, height: int, width: int, images_kwargs: Mapping[str, Any]
) -> Numbers | None:
    images = processor.image_processor
    return {"num_patches": [images.get_number_of_image_patches(height, width, dict(images_kwargs))]}


def _whole(
    processor: Any, height: int, width: int, images_kwargs: Mapping[str, Any]
) -> Numbers | None:
    images = processor.image_processor
    if images_kwargs.get("do_pan_and_scan", getattr(images, "do_pan_and_scan", False)):
        return None
    return {"num_crops": [0]}


def _pixtral(processor: Any, height: int, width: int, _: Mapping[str, Any]) -> Numbers | None:
    images = processor.image_processor
    if not images.do_resize or getattr(images, "do_center_crop", False):
        return None
    cell = getattr(processor, "cell", None)
    longest = images.size.get("longest_edge")
    if cell is None or longest is None:
        return None
    rule = _module_of(images).get_resize_output_image_size
    size = rule(np.broadcast_to(np.uint8(0), (height, width, 3)), longest, cell)
    return {"image_sizes": [size]}


_RULES: dict[str, _Rule] = {
    "Qwen2VLImageProcessorPil": _qwen_grid,
    "Glm4vImageProcessorPil": _glm_grid,
    "CLIPImageProcessorPil": _one_crop,
    "LlavaImageProcessorPil": _one_crop,
    "LlavaNextImageProcessorPil": _anyres,
    "LlavaOnevisionImageProcessorPil": _anyres,
    "Idefics3ImageProcessorPil": _rows_cols,
    "SmolVLMImageProcessorPil": _rows_cols,
    "GotOcr2ImageProcessorPil": _tiles,
    "Gemma3ImageProcessorPil": _whole,
    "PixtralImageProcessorPil": _pixtral,
}
