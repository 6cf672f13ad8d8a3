"""`python -m redserve_llm`: settings from the environment, flags on top.

Exit codes: 0 after a drain, 1 when the engine broke down, 2 when it cannot start as it was told to.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from redserve.errors import ConfigError, RedServeError
from redserve.telemetry.log import configure, get_logger
from redserve.transport.leave import leave
from redserve_llm.arguments import parse

if TYPE_CHECKING:
    from redserve.spec.settings import LLMSettings
    from redserve_llm.model import Model

log = get_logger()


def main(arguments: list[str] | None = None) -> int:
    """Run the replica until it is told to stop; returns the exit code."""
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments)
    except ConfigError as error:
        configure("info", "text", "llm")
        return _refuse(error)
    configure(settings.log_level, settings.log_format, settings.name or "llm")
    try:
        model = _load(settings)
        return asyncio.run(_serve(settings, model))
    except RedServeError as error:
        return _refuse(error)


def _refuse(error: RedServeError) -> int:
    log.error("cannot start", reason=error.reason, why=str(error))
    return 2


def _load(settings: LLMSettings) -> Model:
    """The model, refused by its config before a weight is read if it cannot be served."""
    from redserve.modeling.checkpoint import resolve
    from redserve.modeling.families import family_of

    if not settings.model_uri:
        raise ConfigError("name the checkpoint", field="model_uri")
    cache_dir = Path(settings.model_cache_dir) if settings.model_cache_dir else None
    path = resolve(
        settings.model_uri, settings.model_revision or None, cache_dir, base_dir=Path.cwd()
    )
    family = family_of(path)

    # Seconds of imports, which a checkpoint that is refused does not need.
    import torch

    from redserve.modeling.library_logs import log_as_the_process_does
    from redserve.modeling.tokenizer import require_tokenizer
    from redserve_llm.checkpoint_model import load_model

    # It is loaded last, after minutes of reading weights.
    require_tokenizer(path)
    log_as_the_process_does()
    torch.set_num_threads(settings.num_threads)
    log.info("loading", family=family.model_type, path=str(path))
    return load_model(path, settings)


async def _serve(settings: LLMSettings, model: Model) -> int:
    from redserve_llm.replica import LlmReplica

    replica = LlmReplica(settings, model)
    try:
        await replica.start()
        if not await replica.run_until_signal():
            log.error("stopping: the engine broke down")
            return 1
        log.info("draining")
        await replica.drain(settings.drain_timeout_s)
        return 0
    finally:
        await replica.close()
        log.info("stopped")


if __name__ == "__main__":
    leave(main())
