"""`python -m redserve_encoder`: settings from the environment, flags on top.

Exit codes: 0 after a drain, 1 when the engine died, 2 when it cannot start as it was told to.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from redserve.errors import ConfigError, RedServeError
from redserve.telemetry.log import configure, get_logger
from redserve.transport.leave import leave
from redserve_encoder.arguments import parse

if TYPE_CHECKING:
    from redserve.spec.settings import EncoderSettings
    from redserve_encoder.vision import Vision

log = get_logger()


def main(arguments: list[str] | None = None) -> int:
    """Run the encoder until it is told to stop; returns the exit code."""
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments)
    except ConfigError as error:
        configure("info", "text", "encoder")
        return _refuse(error)
    configure(settings.log_level, settings.log_format, settings.name or "encoder")
    try:
        vision = _load(settings)
        return asyncio.run(_serve(settings, vision))
    except RedServeError as error:
        return _refuse(error)


def _refuse(error: RedServeError) -> int:
    log.error("cannot start", reason=error.reason, why=str(error))
    return 2


def _load(settings: EncoderSettings) -> Vision:
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

    from redserve.modeling.devices import select_device
    from redserve.modeling.library_logs import log_as_the_process_does
    from redserve_encoder.checkpoint_vision import CheckpointVision

    log_as_the_process_does()
    torch.set_num_threads(settings.num_threads)
    device = select_device(settings.device)
    log.info("loading", family=family.model_type, path=str(path), device=str(device))
    vision = CheckpointVision.load(
        path, device, settings.dtype, max_image_pixels=settings.max_image_pixels
    )
    log.info("loaded", weight_bytes=vision.num_bytes, dtype=vision.info.dtype)
    return vision


async def _serve(settings: EncoderSettings, vision: Vision) -> int:
    from redserve_encoder.replica import EncoderReplica

    replica = EncoderReplica(settings, vision)
    try:
        await replica.start()
        try:
            await replica.run_until_signal()
        except Exception:
            log.exception("the engine died")
            return 1
        log.info("draining")
        await replica.drain(settings.drain_timeout_s)
        return 0
    finally:
        await replica.close()
        log.info("stopped")


if __name__ == "__main__":
    leave(main())
