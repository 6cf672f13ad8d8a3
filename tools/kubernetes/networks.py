"""Address ranges of the clusters that we start."""

from __future__ import annotations

from typing import Final

SERVICE_NETWORK: Final = "10.96.0.0/16"
POD_NETWORK: Final = "10.244.0.0/16"
