"""The whole model run alone by transformers: the truth that split serving is compared with.

Prompt and pixels come from the checkpoint's own transformers processor, not from our code. On a
machine without torchvision three gaps are bridged, none of which touches what a processor does
with images: the type check of an absent video processor, SmolVLM's wish for num2words, and the
import of torchvision by the module that Pixtral's takes one size function from.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.pixtral import image_processing_pil_pixtral
from transformers.processing_utils import ProcessorMixin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from PIL import Image


@lru_cache(maxsize=4)
def whole_model(path: Path) -> Any:
    """Both halves in one process, fp32, eval mode."""
    return AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()


def reference_inputs(
    path: Path, messages: Sequence[dict[str, Any]], images: Sequence[Image.Image]
) -> dict[str, Any]:
    """Arguments of the whole model for a conversation; images fill its image parts in order."""
    processor = reference_processor(path)
    # Past SmolVLM's override, which asks the absent video processor for its frame rate.
    text = ProcessorMixin.apply_chat_template(
        processor, list(messages), add_generation_prompt=True, tokenize=False
    )
    bos = processor.tokenizer.bos_token
    extra = {"add_special_tokens": False} if text.startswith(bos) else {}
    # A flat list: each image stands for itself (LLaVA-OneVision drops tiles in nested lists).
    batch = processor(text=[text], images=list(images) or None, return_tensors="pt", **extra)
    return dict(batch)


def reference_generate(
    path: Path,
    messages: Sequence[dict[str, Any]],
    images: Sequence[Image.Image],
    max_new_tokens: int,
) -> list[int]:
    """Greedy tokens of the whole model, fp32, without the prompt."""
    inputs = reference_inputs(path, messages, images)
    model = whole_model(path)
    if hasattr(model.base_model, "rope_deltas"):
        model.base_model.rope_deltas = None  # state of the last caller
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return [int(token) for token in out[0, inputs["input_ids"].shape[1] :]]


@lru_cache(maxsize=16)
def reference_processor(path: Path) -> Any:
    """The checkpoint's own transformers processor."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    settings, _ = ProcessorMixin.get_processor_dict(path)
    name = settings.get("processor_class") or PROCESSOR_MAPPING_NAMES[config["model_type"]]
    with _bridges():
        cls = _processor_class(name)
        parts = {
            "image_processor": AutoImageProcessor.from_pretrained(path, backend="pil"),
            "tokenizer": AutoTokenizer.from_pretrained(path),
        }
        arguments = [parts.get(slot) for slot in cls.get_attributes()]
        return cls.from_args_and_dict(arguments, settings)


def _processor_class(name: str) -> Any:
    folder = {"PixtralProcessor": "pixtral"}.get(name)
    if folder is None:
        import transformers

        return getattr(transformers, name)
    return getattr(
        importlib.import_module(f"transformers.models.{folder}.processing_{folder}"), name
    )


@contextmanager
def _bridges() -> Iterator[None]:
    check = ProcessorMixin.check_argument_for_proper_class

    def lenient(self: Any, name: str, argument: Any) -> Any:
        absent = name == "video_processor" and argument is None
        return None if absent else check(self, name, argument)

    smolvlm = importlib.import_module("transformers.models.smolvlm.processing_smolvlm")
    stand_in = "transformers.models.pixtral.image_processing_pixtral"
    bridged = importlib.util.find_spec("torchvision") is None and stand_in not in sys.modules
    if bridged:
        sys.modules[stand_in] = image_processing_pil_pixtral
    with (
        mock.patch.object(ProcessorMixin, "check_argument_for_proper_class", lenient),
        mock.patch.object(smolvlm, "num2words", smolvlm.num2words or str),
    ):
        try:
            yield
        finally:
            if bridged:
                del sys.modules[stand_in]
