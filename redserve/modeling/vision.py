"""The vision side of a checkpoint: pixel tensors in, embedding rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from redserve.errors import InternalError
from redserve.modeling.collation import collate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from redserve.modeling.families import Family

PixelInputs = Mapping[str, Tensor]
"""Arguments of the vision side for one item (`ProcessedItem.pixels`)."""


@dataclass(frozen=True, slots=True)
class ItemEmbedding:
    """What the language side needs of one item.

    Attributes:
        rows: [1 + num_deepstack, num_rows, hidden], contiguous, model dtype, on the part's device.
            Layer 0 enters the prompt; the others are added inside deeper decoder layers.
    """

    rows: Tensor

    @property
    def num_rows(self) -> int:
        """Prompt positions that the item fills."""
        return self.rows.shape[1]


class VisionPart:
    """Vision tower and projector of a checkpoint, without its language model.

    Attributes:
        family: The checkpoint's family.
        device: Where it computes.
        dtype: What it computes in, and the dtype of the rows.
        hidden_size: Width of a row.
        num_deepstack: Layers of every item's rows beyond the first.
    """

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        self._model: Any = model
        self.family = family
        self.device = model.device
        self.dtype = model.dtype
        self.hidden_size = int(model.config.get_text_config().hidden_size)
        self.num_deepstack = family.num_deepstack

    @property
    def num_bytes(self) -> int:
        """Bytes of the weights that are held."""
        return parameter_bytes(self._model)

    @torch.inference_mode()
    def encode(self, items: Sequence[PixelInputs]) -> list[ItemEmbedding]:
        """Embed items of any number of requests, several in one forward where shapes allow.

        Each result equals that of encoding the item alone (up to rounding). The tensors belong to
        the caller afterwards and share no storage with each other.
        """
        results: dict[int, ItemEmbedding] = {}
        for group in collate(items, self.family.collation):
            output = self._model.base_model.get_image_features(
                **{key: self._place(value) for key, value in group.arguments.items()},
                return_dict=True,
            )
            layers = self._layers(output)
            counts = _split(output.pooler_output, group.weights)
            for index, rows in zip(group.indexes, torch.split(layers, counts, 1), strict=True):
                results[index] = ItemEmbedding(rows.contiguous().clone())
        return [results[index] for index in range(len(items))]

    def _place(self, value: Tensor) -> Tensor:
        dtype = self.dtype if value.is_floating_point() else None
        return value.to(device=self.device, dtype=dtype)

    def _layers(self, output: Any) -> Tensor:
        """[1 + num_deepstack, all rows, hidden]."""
        layers = [_flatten(output.pooler_output)]
        layers += [_flatten(features) for features in output.get("deepstack_features") or ()]
        if len(layers) != 1 + self.num_deepstack:
            raise InternalError(
                f"{self.family.model_type}: vision side gave {len(layers) - 1} deepstack layers, "
                f"its config says {self.num_deepstack}"
            )
        return torch.stack(layers)


def parameter_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters, tied ones counted once."""
    sizes = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    return sum(sizes.values())


def _flatten(features: Tensor | Sequence[Tensor]) -> Tensor:
    if isinstance(features, Tensor):
        return features.reshape(-1, features.shape[-1])
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in features])


def _split(features: Tensor | Sequence[Tensor], weights: Sequence[int]) -> list[int]:
    """Rows per item: as many parts as items, or equal rows for each of an item's tiles."""
    if not isinstance(features, Tensor) and len(features) == len(weights):
        return [part.reshape(-1, part.shape[-1]).shape[0] for part in features]
    num_rows = sum(part.reshape(-1, part.shape[-1]).shape[0] for part in features)
    per_tile, rest = divmod(num_rows, sum(weights))
    if rest:
        raise InternalError(f"{num_rows} rows of {sum(weights)} tiles do not divide evenly")
    return [per_tile * weight for weight in weights]
