"""Load one half of a checkpoint: the vision side, or the language side.

One rule serves every family: the language side is `get_decoder()` and the head, the vision side is
everything else that hangs on the base model (tower, projector, newline vectors).

A throw-away subclass of the real class drops the other half's modules while it is constructed on
the meta device; transformers then reads only the tensors that still have a home, from lazily
mapped safetensors. The subclass keeps the name and module of its parent: otherwise transformers
takes it for foreign code and skips the renames between checkpoint keys and module names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import logging as hf_logging

from redserve.errors import UnsupportedModel
from redserve.modeling.families import Family, family_of, read_config, typed_config
from redserve.modeling.language import LanguagePart
from redserve.modeling.vision import VisionPart
from redserve.modeling.weights import count_elements

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_vision(
    path: Path, device: torch.device | str = "cpu", dtype: DtypeName = "auto"
) -> VisionPart:
    """The vision side of a checkpoint folder, in eval mode on `device`.

    Args:
        path: Folder with config.json and safetensors.
        device: Where to put it.
        dtype: `auto` is the checkpoint's own on CUDA and float32 on the CPU.

    Raises:
        ModelNotFound: There is no config.json.
        UnsupportedModel: The family is not served, a weight file is damaged, or weights of the
            vision side are missing or of another shape than config.json says.
    """
    model, family = _load(path, _keep_vision, torch.device(device), dtype)
    return VisionPart(model, family)


def load_language(
    path: Path, device: torch.device | str = "cpu", dtype: DtypeName = "auto"
) -> LanguagePart:
    """The language side of a checkpoint folder, in eval mode on `device`.

    Arguments and errors as for `load_vision`.
    """
    model, family = _load(path, _keep_language, torch.device(device), dtype)
    return LanguagePart(model, family)


def _load(
    path: Path, prune: Callable[[Any], None], device: torch.device, dtype: DtypeName
) -> tuple[Any, Family]:
    raw_config = read_config(path)
    family = family_of(raw_config)
    config = typed_config(raw_config)
    cls = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    if dtype != "auto":
        chosen: torch.dtype | str = _DTYPES[dtype]
    else:
        chosen = "auto" if device.type == "cuda" else torch.float32
    num_stored = count_elements(path)
    # Quantised checkpoints pack several weights into one element: sizes tell nothing there.
    limit = None if raw_config.get("quantization_config") else num_stored
    model, info = _quiet_load(_pruned(cls, prune, path, limit), path, chosen)
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        name, stored, wanted = mismatched[0]
        raise UnsupportedModel(
            f"{path}: {len(mismatched)} weights have another shape than config.json says, the "
            f"first is {name} with {tuple(stored)} instead of {tuple(wanted)}: "
            "take config.json and weights from the same checkpoint"
        )
    missing = sorted(info["missing_keys"])
    missing += [
        name
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if tensor.is_meta
    ]
    if missing:
        raise UnsupportedModel(
            f"{path}: the checkpoint lacks {len(missing)} weights, the first is {missing[0]}"
        )
    return model.to(device).eval().requires_grad_(False), family


def _pruned(cls: Any, prune: Callable[[Any], None], path: Path, limit: int | None) -> Any:
    """The class that builds one half, of at most `limit` elements, on the meta device."""

    def construct(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        cls.__init__(self, config, *args, **kwargs)
        tied = frozenset(self.all_tied_weights_keys)
        prune(self)
        if limit is not None:
            _refuse_larger(self, tied, path, limit)

    return type(cls.__name__, (cls,), {"__init__": construct, "__module__": cls.__module__})


def _refuse_larger(model: Any, tied: frozenset[str], path: Path, limit: int) -> None:
    """Refuse a half that is larger than all that is stored.

    transformers allocates weights that it does not find, or finds in another shape, before it
    reports them. Comparing shapes beforehand would repeat its renames and fusions between stored
    keys and module names; sizes need none of them. What passes here takes no more memory than the
    checkpoint itself, and is then compared tensor by tensor.
    """
    size = sum(value.numel() for name, value in model.named_parameters() if name not in tied)
    if size > limit:
        raise UnsupportedModel(
            f"{path}: config.json describes {size} parameters, the weight files hold {limit}: "
            "take config.json and weights from the same checkpoint, with all its files"
        )


def _quiet_load(cls: Any, path: Path, dtype: torch.dtype | str) -> tuple[Any, dict[str, Any]]:
    # The load report lists every key of the other half. Quiet the library's root logger, not the
    # module's: an explicit level on the latter switches on other reports.
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(hf_logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        model, info = cls.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            # Reported with name and shapes by the caller; transformers would only point to a log.
            ignore_mismatched_sizes=True,
        )
    except torch.OutOfMemoryError:
        raise  # the machine's fault, not the checkpoint's
    except (RuntimeError, ValueError, OSError, ImportError, SafetensorError) as error:
        if "can't allocate memory" in str(error):  # the CPU's way to say the same
            raise
        raise UnsupportedModel(
            f"{path}: the weights cannot be loaded: {error}; "
            "check that config.json and the weight files belong together and are complete"
        ) from error
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
    return model, info


def _decoder_of(model: Any) -> tuple[nn.Module, str]:
    """Parent and attribute name of the text decoder."""
    decoder = model.get_decoder()
    for parent in (model.base_model, model):
        for name, child in parent.named_children():
            if child is decoder:
                return parent, name
    raise UnsupportedModel(f"{type(model).__name__} has no separable decoder")


def _keep_vision(model: Any) -> None:
    parent, name = _decoder_of(model)
    setattr(parent, name, None)
    if getattr(model, "lm_head", None) is not None:
        model.lm_head = None
    # A tie whose one end is gone would be reported as missing.
    model.all_tied_weights_keys = {}


def _keep_language(model: Any) -> None:
    parent, name = _decoder_of(model)
    # Bare parameters of the base model (image_newline, a few KiB) stay on both sides: the
    # initialisation code of their families touches them by name.
    for child_name, _ in list(parent.named_children()):
        if child_name != name:
            setattr(parent, child_name, None)
