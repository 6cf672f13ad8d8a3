"""The weight files of a checkpoint folder, checked by their headers alone. No torch.

Costs milliseconds per file and no memory, so that a torn copy is one sentence before a model is
built, not a traceback after minutes of reading.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from redserve.errors import UnsupportedModel

if TYPE_CHECKING:
    from pathlib import Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def weight_files(path: Path) -> list[Path]:
    """The files that transformers reads: model.safetensors, or else all that the index names.

    Raises:
        UnsupportedModel: There is neither, the index is unreadable, or a file of it is missing.
    """
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    index = path / INDEX
    if not index.is_file():
        raise UnsupportedModel(f"{path} has neither {SINGLE} nor {INDEX}: copy the weights again")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [path / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(
            f"{index} is damaged or incomplete: copy it again ({error!r})"
        ) from error
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UnsupportedModel(
            f"{index} names {len(missing)} files that are not there, the first is {missing[0]}: "
            "copy them too"
        )
    return files


def count_elements(path: Path) -> int:
    """Elements of all tensors in the weight files; every file's header and length are checked.

    Raises:
        UnsupportedModel: As `weight_files`, or a file is no whole safetensors file.
    """
    return sum(_elements_of(file) for file in weight_files(path))


def _elements_of(file: Path) -> int:
    try:
        # Opening compares the header with the length of the file; no tensor is read.
        with safe_open(file, framework="numpy") as tensors:
            names = tensors.keys()
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError, ValueError) as error:
        raise UnsupportedModel(
            f"{file} is damaged or incomplete: copy it again ({error})"
        ) from error
