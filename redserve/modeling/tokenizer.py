"""The tokenizer of a checkpoint folder, as its processor would load it. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from redserve.errors import ModelNotFound
from redserve.modeling.families import read_config

if TYPE_CHECKING:
    from pathlib import Path

_NAMED_IN = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load it without running code of the folder.

    Raises:
        ModelNotFound: The folder holds no usable tokenizer.
    """
    require_tokenizer(path)
    # Pixtral's processor takes tokenizer.json as it is: its checkpoints name a Llama class whose
    # rules differ from the file's.
    plain = processor_class_name(path) == "PixtralProcessor"
    loader: Any = TokenizersBackend if plain else AutoTokenizer
    try:
        return loader.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelNotFound(f"{path} has no usable tokenizer: {error}") from error


def require_tokenizer(path: Path) -> None:
    """Ask for a vocabulary file: without one transformers builds a tokenizer that knows no token.

    Raises:
        ModelNotFound: There is none.
    """
    if not any((path / name).is_file() for name in _VOCABULARIES):
        raise ModelNotFound(
            f"{path}: the folder has no tokenizer (tokenizer.json, tokenizer.model or vocab.json): "
            "copy the checkpoint's tokenizer files too"
        )


def processor_class_name(path: Path) -> str:
    """Name of the transformers processor, looked for in the order of AutoProcessor.

    Raises:
        ModelNotFound: No file names it and the model type has none.
    """
    for name in _NAMED_IN:
        file = path / name
        if file.is_file():
            named = json.loads(file.read_text(encoding="utf-8")).get("processor_class")
            if named is not None:
                return str(named)
    model_type = read_config(path).get("model_type")
    known = PROCESSOR_MAPPING_NAMES.get(model_type)
    if known is None:
        raise ModelNotFound(f"{path} names no processor class")
    return str(known)
