from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from redserve.errors import ModelNotFound, UnsupportedModel
from redserve.modeling.families import (
    FAMILIES,
    REFUSED,
    family_of,
    image_token_id,
    read_config,
    typed_config,
)
from tests.modeling.conftest import conversation, pictures
from tests.support.tiny_checkpoints import (
    REFUSED_CHECKPOINTS,
    TINY_FAMILIES,
    reference_inputs,
    refused_checkpoint,
    whole_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_every_family_has_a_tiny_checkpoint() -> None:
    assert set(TINY_FAMILIES) == set(FAMILIES)
    assert not set(FAMILIES) & set(REFUSED)


def test_family_of_folder_and_of_config_agree(path: Path) -> None:
    family = family_of(path)
    assert family.model_type == path.name
    assert family == family_of(read_config(path))


def test_mrope_is_what_the_model_class_has(path: Path) -> None:
    base = whole_model(path).base_model
    assert family_of(path).mrope == hasattr(base, "get_rope_index")


def test_container_is_what_the_vision_side_returns(path: Path) -> None:
    inputs = reference_inputs(path, conversation(2), pictures()[:2])
    keys = ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask")
    pixels = {key: inputs[key] for key in keys if key in inputs}
    features = whole_model(path).base_model.get_image_features(**pixels, return_dict=True)
    found = "tensor" if hasattr(features.pooler_output, "shape") else "list"
    assert family_of(path).container == found


def test_deepstack_layers_come_from_the_config(checkpoint: Callable[[str], Path]) -> None:
    assert family_of(checkpoint("qwen3_vl")).num_deepstack == 2
    assert family_of(checkpoint("qwen2_5_vl")).num_deepstack == 0
    # A file may omit what equals transformers' default.
    sparse = {"model_type": "qwen3_vl", "text_config": {}, "vision_config": {}}
    assert family_of(sparse).num_deepstack == 3


def test_llava_with_a_pixtral_tower_pads_its_pictures() -> None:
    vision = {"model_type": "pixtral"}
    config = {"model_type": "llava", "text_config": {}, "vision_config": vision}
    assert family_of(config).collation == "padded"


@pytest.mark.parametrize("name", REFUSED_CHECKPOINTS)
def test_refused_before_any_weight_is_read(name: str, tmp_path: Path) -> None:
    folder = refused_checkpoint(name, tmp_path)
    with pytest.raises(UnsupportedModel) as caught:
        family_of(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("paligemma", "prefix-LM"),
        ("mllama", "cross-attention"),
        ("lfm2_vl", "beside the KV cache"),
        ("qwen3_5", "beside the KV cache"),
        ("llama", "text-only"),
        ("kosmos-2", "supported families: aya_vision, gemma3"),
    ],
)
def test_refusal_says_why(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        family_of(refused_checkpoint(name, tmp_path))


def test_hybrid_decoder_inside_a_supported_family_is_refused() -> None:
    text = {"model_type": "qwen3_next", "num_hidden_layers": 4}
    with pytest.raises(UnsupportedModel, match="linear_attention"):
        family_of({"model_type": "llava", "text_config": text, "vision_config": {}})


@pytest.mark.parametrize("how", ["absent", "null"])
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("vision_config", r"no vision side \(no vision_config in config\.json\)"),
        ("text_config", "no language side .*neither text_config nor hidden_size"),
    ],
)
def test_a_side_that_the_file_lacks_is_not_filled_with_defaults(
    path: Path, key: str, words: str, how: str
) -> None:
    config = read_config(path)
    if how == "null":
        config[key] = None
    else:
        del config[key]
    with pytest.raises(UnsupportedModel, match=words):
        family_of(config)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_the_language_side_may_stand_at_the_top_level(
    name: str, checkpoint: Callable[[str], Path]
) -> None:
    config = read_config(checkpoint(name))
    text = config.pop("text_config")
    flat = {**text, **config}
    assert family_of(flat) == family_of(checkpoint(name))
    assert typed_config(flat).get_text_config().hidden_size == text["hidden_size"]


def test_values_that_transformers_rejects_are_a_typed_error() -> None:
    with pytest.raises(UnsupportedModel, match="no valid llava config"):
        family_of({"model_type": "llava", "text_config": "seven", "vision_config": {}})


def test_image_token_is_found_under_both_names(path: Path) -> None:
    token_id = image_token_id(typed_config(read_config(path)))
    tokens = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    assert tokens[TINY_FAMILIES[path.name].row_token] == token_id


@pytest.mark.parametrize("content", ["{not json", "[]"])
def test_broken_config_is_no_checkpoint(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        family_of(tmp_path)
