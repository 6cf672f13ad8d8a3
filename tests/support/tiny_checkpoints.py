"""Complete tiny checkpoints on disk, and what the whole model alone answers.

    path = tiny_checkpoint("qwen2_5_vl", directory)          # built once per directory
    tokens = reference_generate(path, messages, images, 8)   # transformers alone, fp32, greedy

Weights are random but scaled so that pictures change the logits; rows of special tokens in the
head are zero, so that generation yields ordinary bytes and runs to its length.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.support.reference import reference_generate, reference_inputs, whole_model
from tests.support.tiny_families import CONTROL, TINY_FAMILIES, TinyFamily

__all__ = [
    "REFUSED_CHECKPOINTS",
    "TINY_FAMILIES",
    "reference_generate",
    "reference_inputs",
    "refused_checkpoint",
    "tiny_checkpoint",
    "whole_model",
]

REFUSED_CHECKPOINTS = ("paligemma", "mllama", "lfm2_vl", "qwen3_5", "llama", "kosmos-2")


def tiny_checkpoint(family_name: str, directory: Path) -> Path:
    """Folder of the family's checkpoint under `directory`, built if it is not there yet."""
    target = directory / family_name
    if target.is_dir():
        return target
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        folder = Path(scratch) / family_name
        folder.mkdir()
        _build(TINY_FAMILIES[family_name], folder)
        try:
            folder.rename(target)
        except OSError:  # another process was first
            if not target.is_dir():
                raise
    return target


def refused_checkpoint(name: str, directory: Path) -> Path:
    """Folder that must be refused by its config: its weight file is no safetensors at all."""
    target = directory / f"refused-{name}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if name == "llama":
        config = _llama_config()
        LlamaForCausalLM(config).save_pretrained(target)
        return target
    config_file = {"model_type": name, "text_config": {}, "vision_config": {}}
    (target / "config.json").write_text(json.dumps(config_file), encoding="utf-8")
    (target / "model.safetensors").write_bytes(b"whoever reads this has read too far")
    return target


def _llama_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )


def _build(family: TinyFamily, folder: Path) -> None:
    tokenizer = _tokenizer(family)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _special_tokens(family)}
    tokenizer.save_pretrained(folder)
    _write_json(folder / "preprocessor_config.json", family.image_processor)
    if family.processor:
        _write_json(folder / "processor_config.json", family.processor)
    (folder / "chat_template.jinja").write_text(_chat_template(family), encoding="utf-8")
    config = CONFIG_MAPPING[family.name](**family.config(ids, len(tokenizer)))
    _model(config, family, set(ids.values())).save_pretrained(folder)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _special_tokens(family: TinyFamily) -> tuple[str, ...]:
    return (*CONTROL, *family.specials)


def _tokenizer(family: TinyFamily) -> PreTrainedTokenizerFast:
    """Special tokens first, then the 256 bytes."""
    specials = list(_special_tokens(family))
    words = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    if family.bos_by_tokenizer:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=dict(family.token_names),
    )


def _chat_template(family: TinyFamily) -> str:
    """System, user and assistant turns; any number of images; text as string or as parts."""
    markup = json.dumps(family.image_markup)
    start = "{{ bos_token }}" if family.bos_by_template else ""
    return (
        start + "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ " + markup + " }}"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


def _model(config: Any, family: TinyFamily, special_ids: set[int]) -> Any:
    seed = zlib.crc32(f"{family.name}{family.seed or ''}".encode())
    torch.manual_seed(seed)
    model = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)](config).eval()
    generator = torch.Generator().manual_seed(seed)
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                # The default deviation of 0.02 would let the signal of the pictures vanish; text
                # embeddings of the same size would make a tied head repeat the last token.
                gain = 0.1 if parameter is embeddings else 1.6
                scale = gain * parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            elif "image_newline" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.tie_weights()
        head = model.get_output_embeddings().weight
        head[sorted(special_ids)] = 0.0
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    model.generation_config.bos_token_id = 1
    model.generation_config.do_sample = False
    return model
