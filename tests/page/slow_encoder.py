"""An encoder that takes its time: `python -m tests.page.slow_encoder`.

Everything else of it is real. Prefill of one picture then runs while the next is being encoded,
however fast or busy the machine is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve_encoder.__main__ import main
from redserve_encoder.checkpoint_vision import CheckpointVision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.transport.pool import Region
    from redserve_encoder.vision import Prepared

BATCH_S = 1.0

_encode = CheckpointVision.encode


async def _slowly(
    self: CheckpointVision, batch: Sequence[Prepared], destinations: Sequence[Region]
) -> list[int]:
    await asyncio.sleep(BATCH_S)
    return await _encode(self, batch, destinations)


if __name__ == "__main__":
    CheckpointVision.encode = _slowly  # type: ignore[method-assign]
    raise SystemExit(main())
