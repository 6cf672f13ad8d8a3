"""The language side of a checkpoint: the pruned model and the facts an engine needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.utils import ModelOutput

from redserve.errors import InternalError, UnsupportedModel
from redserve.modeling.families import Family, image_token_id
from redserve.modeling.vision import parameter_bytes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class KVLayer:
    """Shape of one layer's share of the KV cache.

    Attributes:
        layer_idx: The `layer_idx` of the attention module.
        num_kv_heads: Heads of K and V.
        head_dim: Width of K per head.
        value_dim: Width of V per head.
        sliding_window: Tokens that the layer sees, itself included; None for all.
    """

    layer_idx: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    sliding_window: int | None


@dataclass
class ImageRows(ModelOutput):  # type: ignore[misc]  # Any to mypy
    """Embedding rows as the forward of every family reads them; see `LanguagePart.image_rows`.

    Attributes:
        pooler_output: One tensor [1, n, hidden], or a list of one [n, hidden].
        deepstack_features: The same once more per deepstack layer, or None.
    """

    pooler_output: Tensor | list[Tensor] | None = None
    deepstack_features: list[Tensor | list[Tensor]] | None = None


class LanguagePart:
    """Decoder and head of a checkpoint, without its vision side.

    Attributes:
        model: The transformers model; call it with `input_ids`, `position_ids` (always: its
            own rope state is shared by all callers) and `mm_encoder_outputs=image_rows(...)`.
        family: The checkpoint's family.
        kv_layers: One entry per attention layer, by rising layer_idx.
        hidden_size: Width of an embedding row.
        vocab_size: Width of the logits; may exceed the tokenizer's vocabulary.
        max_positions: Longest sequence that the positions were made for, in tokens.
        image_token_id: Id whose positions receive rows.
        eos_token_ids: Ids that end a generation.
        num_deepstack: Row layers beyond the first.
    """

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        text = model.config.get_text_config()
        self.model: Any = model
        self.family = family
        self.device = model.device
        self.dtype = model.dtype
        self.kv_layers = kv_layers(model)
        self.hidden_size = int(text.hidden_size)
        self.vocab_size = int(self.model.get_output_embeddings().weight.shape[0])
        self.max_positions = int(text.max_position_embeddings)
        self.image_token_id = image_token_id(model.config)
        self.eos_token_ids = _eos_token_ids(model)
        self.num_deepstack = family.num_deepstack

    @property
    def num_bytes(self) -> int:
        """Bytes of the weights that are held."""
        return parameter_bytes(self.model)

    def image_rows(self, rows: Tensor) -> dict[str, ModelOutput]:
        """The `mm_encoder_outputs` argument for the row positions of one forward.

        Args:
            rows: [1 + num_deepstack, n, hidden] with n = number of image-token positions among
                the `input_ids` of this forward, in their order. Any float dtype, same device.

        Returns:
            A fresh mapping (the model's forward may write to it).
        """
        if rows.dim() != 3 or rows.shape[0] != 1 + self.num_deepstack:
            raise InternalError(
                f"rows of shape {tuple(rows.shape)} for {1 + self.num_deepstack} layers"
            )
        deepstack = [self._contain(layer) for layer in rows[1:]]
        return {"image": ImageRows(self._contain(rows[0]), deepstack or None)}

    def _contain(self, layer: Tensor) -> Tensor | list[Tensor]:
        return layer[None] if self.family.container == "tensor" else [layer]


def kv_layers(model: Any) -> tuple[KVLayer, ...]:
    """The KV layout of a decoder, read off its attention modules.

    Raises:
        UnsupportedModel: A decoder layer has no key and value projections.
    """
    config = model.config.get_text_config()
    layers = []
    for module in model.get_decoder().modules():
        index = getattr(module, "layer_idx", None)
        if not isinstance(index, int) or not hasattr(module, "k_proj"):
            continue
        head_dim = int(module.head_dim)
        num_kv_heads = int(module.k_proj.out_features) // head_dim
        layers.append(
            KVLayer(
                layer_idx=index,
                num_kv_heads=num_kv_heads,
                head_dim=head_dim,
                value_dim=int(module.v_proj.out_features) // num_kv_heads,
                sliding_window=_sliding_window(module, config),
            )
        )
    layers.sort(key=lambda layer: layer.layer_idx)
    if [layer.layer_idx for layer in layers] != list(range(config.num_hidden_layers)):
        raise UnsupportedModel(
            f"{type(model).__name__}: {len(layers)} of {config.num_hidden_layers} decoder layers "
            "have key and value projections"
        )
    return tuple(layers)


def _sliding_window(module: Any, config: object) -> int | None:
    if hasattr(module, "sliding_window"):
        window = module.sliding_window
    elif getattr(config, "layer_types", None) is None:
        # Mistral passes the config's window to every layer's attention call.
        window = getattr(config, "sliding_window", None)
    else:
        window = None
    return int(window) if isinstance(window, int) and window > 0 else None


def _eos_token_ids(model: Any) -> tuple[int, ...]:
    """As `generate` sees it: generation_config.json, or the config where there is none."""
    configs: list[object] = [model.config, model.config.get_text_config()]
    if model.generation_config is not None:
        configs.insert(0, model.generation_config)
    for config in configs:
        ids = getattr(config, "eos_token_id", None)
        if isinstance(ids, int):
            return (ids,)
        if ids:
            return tuple(int(token_id) for token_id in ids)
    return ()
