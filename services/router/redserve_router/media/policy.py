"""Which pictures are taken, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.spec.settings import RouterSettings


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """Limits of one request; the meaning of each is told in `RouterSettings`."""

    max_images: int
    max_image_bytes: int
    max_image_pixels: int
    max_request_bytes: int
    url_fetch: bool = False
    url_allowed_hosts: tuple[str, ...] = ()
    url_allow_private: bool = False
    url_timeout_s: float = 10.0

    @classmethod
    def from_settings(cls, settings: RouterSettings) -> MediaPolicy:
        """The part of the settings that is about pictures."""
        return cls(
            max_images=settings.max_images,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
            max_request_bytes=settings.max_request_bytes,
            url_fetch=settings.url_fetch,
            url_allowed_hosts=tuple(host.lower() for host in settings.url_allowed_hosts),
            url_allow_private=settings.url_allow_private,
            url_timeout_s=settings.url_timeout_s,
        )
