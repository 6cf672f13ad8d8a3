"""The checkpoint of a manifest: found, and refused before a process starts that cannot serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.errors import ConfigError, RedServeError
from redserve.modeling import checkpoint
from redserve.modeling.families import FAMILIES, family_of, read_config

if TYPE_CHECKING:
    from pathlib import Path

    from redserve.spec.model import ModelSpec
    from redserve.spec.service import RedService


def resolve_model(service: RedService, base_dir: Path) -> str:
    """A `file://` URI of the checkpoint, downloaded if need be; blocks while it downloads.

    Resolved once for all processes, so that they load the same files.

    Args:
        service: The manifest.
        base_dir: Folder of the manifest; relative file URIs start there.

    Raises:
        ConfigError, ModelNotFound, UnsupportedModel, Unavailable: As `checkpoint.resolve`; also
            when its family cannot be served, or not for `maxModelLength` tokens.
    """
    model = service.spec.model
    try:
        folder = checkpoint.resolve(model.uri, model.revision, base_dir=base_dir)
        check_config(model, read_config(folder))
    except RedServeError as error:
        error.field = error.field or "spec.model.uri"
        raise
    return folder.resolve().as_uri()


def check_config(model: ModelSpec, config: dict[str, Any]) -> None:
    """Refuse what config.json alone tells.

    What needs the defaults that files omit is left to the processes: transformers, which knows
    them, loads torch, and the supervisor lives long.

    Raises:
        UnsupportedModel: The family is refused or unknown.
        ConfigError: More tokens are asked for than the checkpoint was made for.
    """
    if str(config.get("model_type", "")) not in FAMILIES:
        family_of(config)
    text = config.get("text_config")
    known = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    if isinstance(known, int) and known < (model.max_model_length or 0):
        raise ConfigError(
            f"the checkpoint was made for {known} tokens at most, not {model.max_model_length}; "
            "lower it, or remove it to take the checkpoint's own",
            field="spec.model.maxModelLength",
        )
