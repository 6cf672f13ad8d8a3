"""The model families that can be served, what is special in each, and why others cannot.

Decided from `config.json` alone, before any weight is read and without torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from redserve.errors import ModelNotFound, UnsupportedModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Collation = Literal["flat", "tiles", "sample", "padded"]
"""How the pixel inputs of several items become one forward of the vision side.

    flat     every tensor is concatenated along its first dimension
    tiles    pixel_values [1, tiles, 3, H, W] loses its first dimension, then as `flat`
    sample   tensors [1, tiles, ...] are concatenated along the second dimension, per tile shape
    padded   pixel_values [1, 3, H, W] are padded to the largest H and W, sizes say what is real
"""

RowContainer = Literal["list", "tensor"]
"""What the model's forward expects as `pooler_output`: [rows_i, hidden] each, or one tensor."""


@dataclass(frozen=True, slots=True)
class Family:
    """Facts about one `model_type` that no class or config tells.

    Attributes:
        model_type: The word in config.json.
        collation: How several items share one forward of the vision side.
        container: Form in which the language side takes embedding rows.
        mrope: Positions have three axes and depend on the grids of the items.
        bidirectional_items: Rows of one span attend to each other in both directions, so a prefill
            chunk may not end inside a span.
        placeholder: What the chat template emits per image, or None if it is the row token itself.
        num_deepstack: Extra row sets per item that enter deeper decoder layers (from the config).
    """

    model_type: str
    collation: Collation = "flat"
    container: RowContainer = "list"
    mrope: bool = False
    bidirectional_items: bool = False
    placeholder: str | None = None
    num_deepstack: int = 0


_FAMILIES = (
    Family("qwen2_vl", mrope=True),
    Family("qwen2_5_vl", mrope=True),
    Family("qwen3_vl", mrope=True),
    Family("glm4v", mrope=True),
    Family("llava"),
    Family("llava_next", collation="tiles"),
    Family("llava_onevision", collation="tiles"),
    Family("idefics3", collation="sample"),
    Family("smolvlm", collation="sample"),
    Family("internvl", container="tensor"),
    Family("aya_vision", container="tensor", placeholder="<image>"),
    Family("mistral3", collation="padded"),
    Family("gemma3", container="tensor", bidirectional_items=True, placeholder="<start_of_image>"),
)

FAMILIES: dict[str, Family] = {family.model_type: family for family in _FAMILIES}
"""Every supported family by its `model_type`."""

REFUSED: dict[str, str] = {
    "paligemma": "it is a prefix-LM: every prompt token attends to the last image, so no token can "
    "be prefilled before all images are encoded",
    "mllama": "its images enter through cross-attention, not as embedding rows of the prompt",
    "lfm2_vl": "its convolution layers keep state beside the KV cache",
    "qwen3_5": "its linear-attention layers keep recurrent state beside the KV cache",
    "qwen3_5_moe": "its linear-attention layers keep recurrent state beside the KV cache",
    "qwen3_next": "its linear-attention layers keep recurrent state beside the KV cache",
}
"""Known families that cannot be served, each with the reason."""

_KV_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


def read_config(path: Path) -> dict[str, Any]:
    """The checkpoint's config.json as a mapping.

    Raises:
        ModelNotFound: There is no config.json, or it is not a JSON object.
    """
    file = path / "config.json"
    if not file.is_file():
        raise ModelNotFound(f"{path} has no config.json: it is no checkpoint folder")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotFound(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelNotFound(f"{file} does not hold a JSON object")
    return config


def family_of(path_or_config: Path | dict[str, Any]) -> Family:
    """The family of a checkpoint folder or of its parsed config.json.

    Raises:
        ModelNotFound: The folder has no readable config.json.
        UnsupportedModel: The family is refused or unknown, or config.json lacks one of its sides.
    """
    config = read_config(path_or_config) if isinstance(path_or_config, Path) else path_or_config
    model_type = str(config.get("model_type", ""))
    if model_type in REFUSED:
        raise UnsupportedModel(f"model_type {model_type!r} cannot be served: {REFUSED[model_type]}")
    vision = config.get("vision_config")
    supported = ", ".join(sorted(FAMILIES))
    if model_type not in FAMILIES:
        if vision is None:
            raise UnsupportedModel(
                f"model_type {model_type!r} is a text-only model without a vision side; "
                f"supported families: {supported}"
            )
        raise UnsupportedModel(
            f"model_type {model_type!r} is not supported; supported families: {supported}"
        )
    _require_both_sides(config, model_type)
    typed = typed_config(config)
    _refuse_hybrid(typed)
    return _with_config_facts(FAMILIES[model_type], typed)


def typed_config(config: dict[str, Any]) -> PreTrainedConfig:
    """The transformers config object of a supported family: fills the defaults that files omit.

    Raises:
        UnsupportedModel: transformers rejects the values.
    """
    # Imported late: refusals need no transformers.
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    cls = CONFIG_MAPPING[config["model_type"]]
    try:
        typed: PreTrainedConfig = cls.from_dict(dict(config))
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise UnsupportedModel(
            f"config.json is no valid {config['model_type']} config: {error}"
        ) from error
    return typed


def image_token_id(config: PreTrainedConfig) -> int:
    """Id whose prompt positions receive embedding rows.

    Raises:
        UnsupportedModel: The config names no image token.
    """
    for key in ("image_token_id", "image_token_index"):
        value = getattr(config, key, None)
        if isinstance(value, int):
            return value
    raise UnsupportedModel("config.json names neither image_token_id nor image_token_index")


def _require_both_sides(config: dict[str, Any], model_type: str) -> None:
    """Asked of the file itself: a side that is absent there becomes a default tower of gigabytes.

    A side that is there may be empty or sparse: files omit what equals transformers' defaults.
    """
    if config.get("vision_config") is None:
        raise UnsupportedModel(
            f"this {model_type} checkpoint has no vision side (no vision_config in config.json): "
            "take config.json and weights from the complete multimodal checkpoint"
        )
    # Qwen2-VL and Qwen2.5-VL were published with the fields of the language side at the top level.
    at_top_level = all(config.get(key) is not None for key in ("hidden_size", "num_hidden_layers"))
    if config.get("text_config") is None and not at_top_level:
        raise UnsupportedModel(
            f"this {model_type} checkpoint has no language side (config.json has neither "
            "text_config nor hidden_size and num_hidden_layers): take config.json and weights "
            "from the complete multimodal checkpoint"
        )


def _refuse_hybrid(config: PreTrainedConfig) -> None:
    layer_types = getattr(config.get_text_config(), "layer_types", None) or ()
    foreign = set(layer_types) - _KV_LAYER_TYPES
    if foreign:
        raise UnsupportedModel(
            f"model_type {config.model_type!r} has layers of type {', '.join(sorted(foreign))}, "
            "which keep state beside the KV cache"
        )


def _with_config_facts(family: Family, config: PreTrainedConfig) -> Family:
    vision = getattr(config, "vision_config", None)
    if family.model_type == "llava" and getattr(vision, "model_type", None) == "pixtral":
        family = replace(family, collation="padded")
    indexes = getattr(vision, "deepstack_visual_indexes", None)
    return replace(family, num_deepstack=len(indexes)) if indexes else family
