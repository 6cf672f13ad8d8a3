"""What the dispatcher is allowed to take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.spec.settings import RouterSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """The meaning of each is told in `RouterSettings`."""

    max_inflight_requests: int = 1024
    request_timeout_s: float = 300.0
    encoder_grace_s: float = 60.0
    llm_grace_s: float = 3.0

    @classmethod
    def from_settings(cls, settings: RouterSettings) -> Limits:
        """The part of the settings that is about patience."""
        return cls(
            max_inflight_requests=settings.max_inflight_requests,
            request_timeout_s=settings.request_timeout_s,
            encoder_grace_s=settings.encoder_grace_s,
            llm_grace_s=settings.llm_grace_s,
        )
