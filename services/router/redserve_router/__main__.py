"""`python -m redserve_router`: settings from the environment, flags on top.

Exit codes: 0 after a drain, 2 when it cannot start as it was told to.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from redserve_router.no_torch import forbid_torch

forbid_torch()

from redserve.errors import RedServeError  # noqa: E402  # torch is forbidden first
from redserve.modeling.checkpoint import resolve  # noqa: E402
from redserve.modeling.library_logs import log_as_the_process_does  # noqa: E402
from redserve.modeling.prompt import PromptRenderer  # noqa: E402
from redserve.spec.settings import kubernetes_api  # noqa: E402
from redserve.telemetry.log import configure, get_logger  # noqa: E402
from redserve_router.arguments import parse_settings  # noqa: E402
from redserve_router.assembly import Router  # noqa: E402

if TYPE_CHECKING:
    from redserve.spec.settings import RouterSettings

log = get_logger()


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = parse_settings()
        configure(settings.log_level, settings.log_format, settings.name or "router")
        log_as_the_process_does()
        asyncio.run(_serve(settings))
    except RedServeError as error:
        # The sentence says it all; a traceback would only hide it.
        log.error("cannot start", reason=error.reason, why=str(error))  # noqa: TRY400
        return 2
    return 0


async def _serve(settings: RouterSettings) -> None:
    path = resolve(
        settings.model_uri,
        settings.model_revision or None,
        Path(settings.model_cache_dir) if settings.model_cache_dir else None,
        base_dir=Path.cwd(),
        weights=False,
    )
    renderer = PromptRenderer.from_checkpoint(path)
    remark = renderer.check()
    if remark is not None:
        log.warning("chat template not tried", why=remark)
    name = settings.model_name or path.name
    router = Router(settings, renderer, name, api_url=kubernetes_api())
    await router.start()
    await router.server.wait_for_signal()
    log.info("router drains", timeout_s=settings.drain_timeout_s)
    await router.stop(settings.drain_timeout_s)


if __name__ == "__main__":
    sys.exit(main())
