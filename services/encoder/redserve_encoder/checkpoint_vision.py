"""The vision side of a real checkpoint: which weights, which call."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, cast

import torch

from redserve.modeling.checkpoint import fingerprint
from redserve.modeling.device_slab import DeviceSlab, device_memory
from redserve.modeling.images import decode_image
from redserve.modeling.parts import load_vision
from redserve.modeling.processing import ItemProcessor
from redserve.telemetry.log import get_logger
from redserve_encoder.sizes import upright_size
from redserve_encoder.vision import DeviceLostError, ModelInfo, Prepared

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from redserve.domain import ItemMetadata
    from redserve.modeling.parts import DtypeName
    from redserve.modeling.vision import VisionPart
    from redserve.transport.placement import DeviceMemory
    from redserve.transport.pool import Region
    from redserve.transport.slab import Slab

log = get_logger()


class CheckpointVision:
    """`Vision` over `redserve.modeling`. The model computes in one thread of its own."""

    def __init__(
        self, processor: ItemProcessor, part: VisionPart, digest: str, *, max_image_pixels: int
    ) -> None:
        """Take over a loaded model.

        Args:
            processor: Prepares pictures.
            part: Encodes them.
            digest: Fingerprint of the checkpoint.
            max_image_pixels: Most pixels of one picture.
        """
        self._processor = processor
        self._part = part
        self._max_pixels = max_image_pixels
        self._info = ModelInfo(
            fingerprint=digest,
            family=part.family.model_type,
            placeholder=processor.placeholder,
            image_token_ids=processor.image_token_ids,
            hidden_size=part.hidden_size,
            num_layers=1 + part.num_deepstack,
            dtype=str(part.dtype).removeprefix("torch."),
        )
        self._thread = ThreadPoolExecutor(1, "vision")
        self._pinned: NDArray[np.uint8] | None = None

    @classmethod
    def load(
        cls, path: Path, device: torch.device, dtype: DtypeName, *, max_image_pixels: int
    ) -> Self:
        """Load the vision side of a checkpoint folder.

        Raises:
            ModelNotFound: A file is missing.
            UnsupportedModel: The checkpoint cannot be served.
        """
        processor = ItemProcessor.from_checkpoint(path)
        part = load_vision(path, device, dtype)
        return cls(processor, part, fingerprint(path), max_image_pixels=max_image_pixels)

    @property
    def info(self) -> ModelInfo:
        """See `Vision`."""
        return self._info

    @property
    def num_bytes(self) -> int:
        """Bytes of the weights that are held."""
        return self._part.num_bytes

    @property
    def device_memory(self) -> DeviceMemory | None:
        """See `Vision`."""
        return device_memory(self._part.device)

    def adopt(self, memory: Slab) -> None:
        """See `Vision`: page-locks host memory, so that the device writes into it at full speed."""
        if memory.host is not None and self._part.device.type == "cuda":
            self._pin(memory.host)

    def _pin(self, memory: NDArray[np.uint8]) -> None:
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        code = runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)
        if int(code) != 0:
            log.warning("the pool cannot be page-locked; copies are slower", code=int(code))
            return
        self._pinned = memory

    def describe(self, data: bytes) -> ItemMetadata:
        """See `Vision`."""
        height, width = upright_size(data, max_pixels=self._max_pixels)
        return self._processor.metadata_for_size(height, width)

    def prepare(self, data: bytes) -> Prepared:
        """See `Vision`."""
        image = decode_image(data, max_pixels=self._max_pixels, field="picture")
        item = self._processor.process(image)
        num_bytes = sum(value.numel() * value.element_size() for value in item.pixels.values())
        return Prepared(item.metadata, item.pixels, num_bytes)

    async def encode(self, batch: Sequence[Prepared], destinations: Sequence[Region]) -> list[int]:
        """See `Vision`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._encode, batch, destinations)

    def close(self) -> None:
        """See `Vision`. Waits for the batch in hand."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._pinned is not None:
            runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            runtime.cudaHostUnregister(self._pinned.ctypes.data)
            self._pinned = None

    def _encode(self, batch: Sequence[Prepared], destinations: Sequence[Region]) -> list[int]:
        try:
            pixels = [cast("dict[str, Tensor]", item.pixels) for item in batch]
            embeddings = self._part.encode(pixels)
            for item, embedding, destination in zip(batch, embeddings, destinations, strict=True):
                if embedding.num_rows == item.metadata.num_rows:
                    rows = embedding.rows
                    target = _bytes(destination).view(rows.dtype).view(rows.shape)
                    target.copy_(rows, non_blocking=self._pinned is not None)
            if self._part.device.type == "cuda":
                # The rows are offered next, and a NIC that reads them waits for no stream.
                torch.cuda.current_stream(self._part.device).synchronize()
        except Exception:
            self._check_device()
            raise
        return [embedding.num_rows for embedding in embeddings]

    def _check_device(self) -> None:
        """After a failure: some CUDA errors end every later call of the process, most do not."""
        if self._part.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self._part.device)
            torch.cuda.empty_cache()  # it may have been memory
        except RuntimeError as error:
            raise DeviceLostError(f"{self._part.device} does not answer any more") from error


def _bytes(region: Region) -> Tensor:
    """A region's memory, uint8."""
    slab = region.pool.slab
    if isinstance(slab, DeviceSlab):
        return slab.tensor[region.offset : region.offset + region.num_bytes]
    return torch.from_numpy(region.view)
