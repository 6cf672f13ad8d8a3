"""Why discovery does not hear from the API server."""

from __future__ import annotations

from typing import Literal

Kind = Literal["unreachable", "credentials", "unauthorized", "forbidden", "refused", "expired"]
"""unreachable: no answer; credentials: no usable token or certificate authority; unauthorized and
forbidden: 401 and 403; refused: any other status; expired: what was known is too old to go on
from, so that everything is to be listed again."""


class Problem(Exception):
    """Something that passes, or that somebody has to mend. Never leaves discovery.

    Attributes:
        kind: One word for metrics.
        retry_after_s: When the server wants to be asked again, or None.
    """

    def __init__(self, kind: Kind, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s
