"""docs/reference/supported-models.md: families that can be served, and why others cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.modeling.families import FAMILIES, REFUSED
from tools.docs.markdown import code, page, table

if TYPE_CHECKING:
    from redserve.modeling.families import Family

INTRODUCTION: Final = (
    "A checkpoint's family is `model_type` in its `config.json`. It needs weights as safetensors, "
    "a vision side, and a tokenizer with a chat template; code that comes with a checkpoint is "
    "never run. Each family is tested against the whole transformers model: fp32, greedy, token "
    "for token.",
    "",
)
_COLLATIONS: Final = {
    "flat": "patches of all pictures in one sequence",
    "tiles": "tiles of all pictures in one batch",
    "sample": "tiles per picture, batched by shape",
    "padded": "padded to the largest picture",
}


def models_page() -> str:
    """The page."""
    rows = [
        (code(name), _positions(family), _prefill(family), _COLLATIONS[family.collation])
        for name, family in sorted(FAMILIES.items())
    ]
    refused = [(code(name), why) for name, why in sorted(REFUSED.items())]
    return page(
        "Supported models",
        *INTRODUCTION,
        "## Served",
        *table(("model_type", "positions", "prefill", "one encoder batch"), rows),
        "",
        "## Refused, with the reason",
        "The refusal comes before any weight is read.",
        "",
        *table(("model_type", "why"), refused),
        "",
        "Also refused: text-only models, families that are not listed, and any checkpoint with "
        "layers that keep state beside the KV cache.",
    )


def _positions(family: Family) -> str:
    return "three axes (M-RoPE)" if family.mrope else "one axis"


def _prefill(family: Family) -> str:
    if family.bidirectional_items:
        return "picture by picture: its tokens attend to each other in both directions"
    return "token by token, as rows arrive"
