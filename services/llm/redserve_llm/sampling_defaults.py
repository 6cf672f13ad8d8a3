"""The checkpoint's own sampling, as transformers' generate() would take it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from redserve.domain import SamplingParams
from redserve.errors import UnsupportedModel

if TYPE_CHECKING:
    from pathlib import Path

_TOP_K = 50
"""transformers' default where generation_config.json has none."""


def sampling_defaults(path: Path, max_tokens: int) -> SamplingParams:
    """Read generation_config.json; without one, greedy.

    A checkpoint that does not sample has temperature 0; its top_k and top_p hold for a request
    that brings a temperature, as for `generate(do_sample=True, temperature=...)`.

    Args:
        path: Folder of the checkpoint.
        max_tokens: For requests that bring none.

    Raises:
        UnsupportedModel: The file is broken.
    """
    file = path / "generation_config.json"
    config: dict[str, Any] = {}
    if file.is_file():
        try:
            config = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UnsupportedModel(f"{file} is not a JSON object: {error}") from error

    def get(name: str, default: float) -> float:
        value = config.get(name)
        return default if value is None else value

    return SamplingParams(
        temperature=float(get("temperature", 1.0)) if config.get("do_sample") else 0.0,
        top_k=int(get("top_k", _TOP_K)),
        top_p=float(get("top_p", 1.0)),
        repetition_penalty=float(get("repetition_penalty", 1.0)),
        max_tokens=max_tokens,
    )
