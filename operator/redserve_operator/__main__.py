"""`python -m redserve_operator`: settings from the environment.

Exit codes: 0 after SIGTERM, or when the cluster's kinds have changed; 1 when it has to be started
anew (the Lease is lost, a watch is over); 2 when it cannot start as it was told to.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from redserve.errors import RedServeError
from redserve.spec.settings import OperatorSettings
from redserve.telemetry.log import configure, get_logger
from redserve_operator.assembly import Operator

log = get_logger()


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = OperatorSettings.from_env()
        configure(settings.log_level, settings.log_format, settings.identity or "operator")
        return asyncio.run(_serve(settings))
    except RedServeError as error:
        # The sentence says it all; a traceback would only hide it.
        log.error("cannot start", reason=error.reason, why=str(error))  # noqa: TRY400
        return 2


async def _serve(settings: OperatorSettings) -> int:
    operator = Operator(settings)
    loop = asyncio.get_running_loop()

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, operator.stop)

    take_signals()
    return await operator.run(take_signals)


if __name__ == "__main__":
    sys.exit(main())
