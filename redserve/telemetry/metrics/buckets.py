"""Buckets of histograms: the same for what is compared."""

from __future__ import annotations

from typing import Final

DURATION_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
)  # fmt: skip
"""Seconds: fine where time to first token lives, coarse up to slow CPU answers."""
SHORT_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip
"""Seconds: steps, transfers and queues."""
TOKEN_BUCKETS: Final = tuple(float(2**power) for power in range(17))
"""1 to 65536 tokens or rows."""
COUNT_BUCKETS: Final = tuple(float(2**power) for power in range(9))
"""1 to 256 sequences or images."""
RATIO_BUCKETS: Final = tuple(tenth / 10 for tenth in range(11))
"""0 to 1."""
