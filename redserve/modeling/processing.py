"""One picture in, its metadata and pixel tensors out: the image half of the processor."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from redserve.domain.item import ItemMetadata
from redserve.errors import InvalidArgument, UnsupportedModel
from redserve.modeling.families import Family, family_of, image_token_id, read_config, typed_config
from redserve.modeling.images import decode_image, image_size
from redserve.modeling.processors import load_processor
from redserve.modeling.sizing import numbers_for_size
from redserve.modeling.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

__all__ = ["ItemProcessor", "ProcessedItem", "decode_image", "image_size"]

PIXEL_KEYS = ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask")
"""What vision sides take; other outputs of image processors only serve the prompt."""

MIN_EDGE = 4
"""Shortest edge in pixels; image processors take edges of 1 or 3 for the colour channels."""

_MEMO_SIZE = 4096


@dataclass(frozen=True, slots=True)
class ProcessedItem:
    """An item ready for the vision side.

    Attributes:
        metadata: Rows, grid and replacement text; a function of the picture's size alone.
        pixels: Arguments of the vision side for this one item, float32 and int64, on the CPU.
    """

    metadata: ItemMetadata
    pixels: dict[str, Tensor]


class ItemProcessor:
    """Preprocesses one image at a time; safe to call from several threads.

    An item never depends on its neighbours: LLaVA-OneVision is given each image as the only one
    of its sample (tiles for each), as when its processor gets a flat list of images.

    Attributes:
        family: The checkpoint's family.
        placeholder: What the chat template emits per image.
        image_token_ids: Ids whose positions receive embedding rows.
    """

    def __init__(self, processor: Any, family: Family, row_token_id: int) -> None:
        self._processor = processor
        self.family = family
        self.image_token_ids: tuple[int, ...] = (row_token_id,)
        self._row_token = str(processor.tokenizer.convert_ids_to_tokens(row_token_id))
        self.placeholder: str = family.placeholder or self._row_token
        if processor.image_token != self.placeholder:
            raise UnsupportedModel(
                f"the processor replaces {processor.image_token!r}, but config.json and family "
                f"{family.model_type} say {self.placeholder!r}"
            )
        self._images_kwargs = {form: _images_kwargs(processor, form) for form in ("np", "pt")}
        self._memo: OrderedDict[tuple[int, int], ItemMetadata] = OrderedDict()
        self._memo_lock = threading.Lock()

    @classmethod
    def from_checkpoint(cls, path: Path) -> ItemProcessor:
        """Load the image processor of the checkpoint folder; no code of it is run.

        Raises:
            ModelNotFound: config.json, tokenizer or image processor settings are missing.
            UnsupportedModel: The family is not served or its settings contradict each other.
        """
        raw_config = read_config(path)
        family = family_of(raw_config)
        processor = load_processor(path, load_tokenizer(path))
        return cls(processor, family, image_token_id(typed_config(raw_config)))

    def process(self, image: Image.Image) -> ProcessedItem:
        """Resize, tile and normalise one RGB picture.

        Raises:
            InvalidArgument: The family refuses the size (e.g. an extreme aspect ratio).
        """
        data, replacement = self._run(image, "pt")
        pixels = {key: data[key] for key in PIXEL_KEYS if key in data}
        metadata = self._metadata(data, replacement)
        self._remember((image.height, image.width), metadata)
        return ProcessedItem(metadata, pixels)

    def metadata_for_size(self, height: int, width: int) -> ItemMetadata:
        """Metadata of any upright picture of this size, without its pixels and without torch.

        Microseconds where `redserve.modeling.sizing` has a rule; else a blank picture of the size
        is preprocessed once and remembered.

        Raises:
            InvalidArgument: The family refuses the size.
        """
        size = (height, width)
        with self._memo_lock:
            known = self._memo.get(size)
            if known is not None:
                self._memo.move_to_end(size)
                return known
        kwargs = self._images_kwargs["np"]
        with _sizes_refused(height, width):
            numbers = numbers_for_size(self._processor, height, width, kwargs)
            if numbers is not None:
                replacement = self._processor.replace_image_token(numbers, 0, **kwargs)
            else:
                numbers, replacement = self._run(Image.new("RGB", (width, height)), "np")
        metadata = self._metadata(numbers, replacement)
        self._remember(size, metadata)
        return metadata

    def _run(self, image: Image.Image, tensors: str) -> tuple[Any, str]:
        with _sizes_refused(image.height, image.width):
            # Nested as a batch of one sample with one image, the form all families take.
            data, replacements = self._processor._process_images(
                [[image]], **self._images_kwargs[tensors]
            )
        return data, replacements[0]

    def _metadata(self, data: Any, replacement: str) -> ItemMetadata:
        grid = data.get("image_grid_thw")
        num_rows = replacement.count(self._row_token)
        if num_rows == 0:
            raise InvalidArgument("the picture is so narrow that no row is left", field="image")
        return ItemMetadata(
            num_rows=num_rows,
            grid=() if grid is None else tuple(int(edge) for edge in grid[0]),
            replacement_text=replacement,
        )

    def _remember(self, size: tuple[int, int], metadata: ItemMetadata) -> None:
        with self._memo_lock:
            self._memo[size] = metadata
            self._memo.move_to_end(size)
            if len(self._memo) > _MEMO_SIZE:
                self._memo.popitem(last=False)


def _images_kwargs(processor: Any, tensors: str) -> dict[str, Any]:
    """What the processor's own call would pass on to its image processor."""
    merged = processor._merge_kwargs(
        tokenizer_init_kwargs=processor.tokenizer.init_kwargs, return_tensors=tensors
    )
    kwargs: dict[str, Any] = merged["images_kwargs"]
    return kwargs


@contextmanager
def _sizes_refused(height: int, width: int) -> Iterator[None]:
    """Image processors refuse sizes with ValueError, or divide by an edge that became zero."""
    if min(height, width) < MIN_EDGE:
        raise InvalidArgument(
            f"a picture of {width}x{height} is too narrow: each edge needs {MIN_EDGE} pixels",
            field="image",
        )
    try:
        yield
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidArgument(
            f"the model takes no picture of {width}x{height}: {error}", field="image"
        ) from error
