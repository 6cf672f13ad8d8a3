from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from redserve.errors import InternalError, UnsupportedModel
from redserve.modeling import collation
from redserve.modeling.parts import load_language, load_vision
from redserve.modeling.processing import PIXEL_KEYS, ItemProcessor, ProcessedItem
from redserve.modeling.prompt import PromptRenderer
from redserve.modeling.vision import ItemEmbedding, parameter_bytes
from tests.modeling.conftest import conversation, pictures
from tests.support.tiny_checkpoints import (
    reference_inputs,
    refused_checkpoint,
    whole_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _items(path: Path) -> list[ProcessedItem]:
    processor = ItemProcessor.from_checkpoint(path)
    return [processor.process(image) for image in pictures()]


def _embeddings(path: Path, items: list[ProcessedItem]) -> list[ItemEmbedding]:
    return load_vision(path).encode([item.pixels for item in items])


def test_the_two_sides_add_up_to_the_whole(path: Path) -> None:
    vision, language = load_vision(path), load_language(path)
    whole = whole_model(path)
    newline = getattr(whole.base_model, "image_newline", None)
    twice = 0 if newline is None else newline.numel() * newline.element_size()
    assert vision.num_bytes + language.num_bytes == parameter_bytes(whole) + twice
    assert 0 < vision.num_bytes < parameter_bytes(whole)
    names = {name for name, _ in language.model.named_parameters()}
    assert not [name for name in names if "vision" in name or "visual" in name]


def test_weights_are_those_of_the_whole(path: Path) -> None:
    whole = dict(whole_model(path).named_parameters())
    part = load_language(path).model
    for name, value in part.named_parameters():
        assert torch.equal(value, whole[name]), name
        assert not value.requires_grad
    assert not part.training


def test_rows_equal_the_features_of_the_whole_model(path: Path) -> None:
    images = pictures()
    inputs = reference_inputs(path, conversation(len(images)), images)
    pixels = {key: inputs[key] for key in PIXEL_KEYS if key in inputs}
    with torch.inference_mode():
        output = whole_model(path).base_model.get_image_features(**pixels, return_dict=True)
    layers = [output.pooler_output, *(output.get("deepstack_features") or ())]
    expected = [
        torch.cat([part.reshape(-1, part.shape[-1]) for part in features]) for features in layers
    ]
    found = torch.cat([embedding.rows for embedding in _embeddings(path, _items(path))], dim=1)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_an_item_is_the_same_alone_and_in_company(path: Path) -> None:
    vision = load_vision(path)
    items = _items(path)
    together = vision.encode([item.pixels for item in items])
    backwards = vision.encode([item.pixels for item in reversed(items)])[::-1]
    for item, one, other in zip(items, together, backwards, strict=True):
        (alone,) = vision.encode([item.pixels])
        assert alone.rows.shape == (
            1 + vision.num_deepstack,
            item.metadata.num_rows,
            vision.hidden_size,
        )
        torch.testing.assert_close(one.rows, alone.rows, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.rows, alone.rows, rtol=1e-4, atol=1e-4)
        assert one.rows.is_contiguous()
    storages = {embedding.rows.untyped_storage().data_ptr() for embedding in together}
    assert len(storages) == len(items), "freeing one item frees its memory"


def test_pictures_that_differ_have_rows_that_differ(path: Path) -> None:
    first, second, third, fourth, _ = _embeddings(path, _items(path))
    assert first.rows.shape == fourth.rows.shape  # same size, other noise
    assert (first.rows - fourth.rows).abs().max() > 0.1
    assert second.rows.abs().max() > 0.1
    assert third.rows.abs().max() > 0.1


def test_pixtral_in_several_forwards(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint("mistral3")
    items = _items(path)
    expected = _embeddings(path, items)
    monkeypatch.setattr(collation, "MAX_PADDED_CELLS", 1)
    for one, other in zip(_embeddings(path, items), expected, strict=True):
        torch.testing.assert_close(one.rows, other.rows, rtol=1e-4, atol=1e-4)


def test_no_items_no_rows(path: Path) -> None:
    assert load_vision(path).encode([]) == []


def test_language_facts(path: Path) -> None:
    part = load_language(path)
    assert [layer.layer_idx for layer in part.kv_layers] == [0, 1, 2]
    assert {(la.num_kv_heads, la.head_dim, la.value_dim) for la in part.kv_layers} == {(2, 16, 16)}
    windows = {"gemma3": [12, None, 12], "aya_vision": [24, None, 24]}
    expected = windows.get(path.name, [None] * 3)
    assert [layer.sliding_window for layer in part.kv_layers] == expected
    assert (part.hidden_size, part.max_positions, part.eos_token_ids) == (64, 4096, (2,))
    tokenizer = PromptRenderer.from_checkpoint(path).tokenizer
    assert part.vocab_size == len(tokenizer)
    assert part.num_deepstack == (2 if path.name == "qwen3_vl" else 0)
    assert part.dtype is torch.float32


def test_a_window_in_the_config_counts_for_every_mistral_layer(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mistral3"
    shutil.copytree(checkpoint("mistral3"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["sliding_window"] = 33
    (folder / "config.json").write_text(json.dumps(config))
    assert {layer.sliding_window for layer in load_language(folder).kv_layers} == {33}


@pytest.mark.parametrize("stop", [[7, 9], 7])
def test_stop_ids_of_the_generation_config(
    stop: int | list[int], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("llava"), folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": stop}))
    assert load_language(folder).eos_token_ids == ((7, 9) if isinstance(stop, list) else (7,))


def test_rows_of_a_wrong_depth_are_caught(checkpoint: Callable[[str], Path]) -> None:
    part = load_language(checkpoint("qwen3_vl"))
    with pytest.raises(InternalError, match="for 3 layers"):
        part.image_rows(torch.zeros(1, 4, 64))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_on_request(dtype: Any, checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint("qwen3_vl")
    wanted = getattr(torch, dtype)
    vision, language = load_vision(path, dtype=dtype), load_language(path, dtype=dtype)
    assert (vision.dtype, language.dtype) == (wanted, wanted)
    items = _items(path)
    exact = _embeddings(path, items)[0].rows
    (half,) = vision.encode([items[0].pixels])
    assert half.rows.dtype is wanted
    assert (half.rows.float() - exact).abs().max() < 0.1 * exact.abs().max()
    assert vision.num_bytes * 2 == load_vision(path).num_bytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_on_cuda_equal_those_on_the_cpu(path: Path) -> None:
    items = _items(path)
    vision = load_vision(path, "cuda", "float32")
    language = load_language(path, "cuda", "float32")
    assert {vision.device.type, language.device.type} == {"cuda"}
    on_cuda = vision.encode([item.pixels for item in items])
    for one, other in zip(on_cuda, _embeddings(path, items), strict=True):
        torch.testing.assert_close(one.rows.cpu(), other.rows, rtol=1e-3, atol=1e-2)


def test_sharded_checkpoints_load(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source = checkpoint("qwen2_5_vl")
    folder = tmp_path / "sharded"
    shutil.copytree(source, folder)
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    index: dict[str, str] = {}
    for number, shard in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: whole[name] for name in shard}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    for load in (load_vision, load_language):
        assert load(folder).num_bytes == load(source).num_bytes


@pytest.mark.parametrize(("load", "word"), [(load_vision, "visual"), (load_language, "norm")])
def test_missing_weights_are_named(
    load: Callable[[Path], object], word: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(checkpoint("qwen2_5_vl"), folder)
    weights = load_file(folder / "model.safetensors")
    torn = next(name for name in weights if word in name)
    del weights[torn]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedModel, match=f"lacks 1 weights, the first is .*{word}"):
        load(folder)


@pytest.mark.parametrize("load", [load_vision, load_language])
def test_refused_families_are_not_loaded(load: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="prefix-LM"):
        load(refused_checkpoint("paligemma", tmp_path))


EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').write_text('x')\n"


def test_code_in_a_checkpoint_is_never_run(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(checkpoint("qwen2_5_vl"), folder)
    (folder / "evil.py").write_text(EVIL + f"Path({str(folder / 'ran')!r}).write_text('x')\n")
    autos = ("AutoConfig", "AutoModelForImageTextToText", "AutoTokenizer", "AutoImageProcessor")
    auto_map = dict.fromkeys((*autos, "AutoProcessor"), "evil.Evil")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        file = folder / name
        content = json.loads(file.read_text())
        mapped = {**auto_map, "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        file.write_text(json.dumps({**content, "auto_map": mapped}))
    (folder / "processor_config.json").write_text(json.dumps({"auto_map": auto_map}))
    items = _items(folder)
    assert load_vision(folder).encode([items[0].pixels])[0].num_rows == items[0].metadata.num_rows
    assert load_language(folder).vocab_size > 0
    assert PromptRenderer.from_checkpoint(folder).render(conversation(1))
    assert not (folder / "ran").exists()


def test_a_processor_class_from_elsewhere_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(checkpoint("qwen2_5_vl"), folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "EvilProcessor"}))
    with pytest.raises(UnsupportedModel, match="unknown processor 'EvilProcessor'"):
        ItemProcessor.from_checkpoint(folder)
