"""All pictures of a question: fetched or unpacked, checked, measured and hashed."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.errors import PolicyViolation
from redserve_router.media.data_url import decode_data_url, is_data_url
from redserve_router.media.header import read_header
from redserve_router.question import PictureBytes, pictures_of
from redserve_router.tasks import gather_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from redserve_router.media.fetch import PictureFetcher
    from redserve_router.media.policy import MediaPolicy
    from redserve_router.question import Message, PicturePlace, PictureUrl

MAX_PARALLEL_FETCHES = 8
"""Per request; more would let one request use the router to flood a host."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that may be encoded.

    Attributes:
        content_hash: sha256 of `data`.
        upright_size: (height, width) in pixels, or None if only decoding can tell.
        field: Where it stands in the request, for error messages.
    """

    data: bytes
    content_hash: bytes
    upright_size: tuple[int, int] | None
    field: str


class PictureCollector:
    """Brings the pictures of a question together under the policy."""

    def __init__(self, policy: MediaPolicy, fetcher: PictureFetcher, executor: Executor) -> None:
        self._policy = policy
        self._fetcher = fetcher
        self._executor = executor

    async def collect(self, messages: tuple[Message, ...]) -> tuple[Picture, ...]:
        """The pictures in prompt order. Hashing and parsing run beside the event loop.

        Raises:
            PolicyViolation: Too many pictures, bytes or pixels, or an address that may not be
                fetched.
            InvalidArgument: A picture cannot be had or read; `field` names its part.
        """
        places = pictures_of(messages)
        if not places:
            return ()
        if len(places) > self._policy.max_images:
            raise PolicyViolation(
                f"the request has {len(places)} images, at most {self._policy.max_images} "
                "are allowed",
                field=places[self._policy.max_images].field,
            )
        fetched = await self._fetch_all(places)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._examine_all, places, fetched)

    async def _fetch_all(self, places: Sequence[PicturePlace]) -> dict[int, bytes]:
        remote = {
            index: place.source
            for index, place in enumerate(places)
            if not isinstance(place.source, PictureBytes) and not is_data_url(place.source.url)
        }
        if not remote:
            return {}
        gate = asyncio.Semaphore(MAX_PARALLEL_FETCHES)

        async def fetch(index: int, source: PictureUrl) -> bytes:
            async with gate:
                return await self._fetcher.fetch(source.url, places[index].field)

        bodies = await gather_all(fetch(index, source) for index, source in remote.items())
        return dict(zip(remote, bodies, strict=True))

    def _examine_all(
        self, places: Sequence[PicturePlace], fetched: dict[int, bytes]
    ) -> tuple[Picture, ...]:
        pictures: list[Picture] = []
        total = 0
        for index, place in enumerate(places):
            data = fetched[index] if index in fetched else self._unpack(place)
            total += len(data)
            pictures.append(self._examine(data, total, place.field))
        return tuple(pictures)

    def _unpack(self, place: PicturePlace) -> bytes:
        if isinstance(place.source, PictureBytes):
            return place.source.data
        return decode_data_url(
            place.source.url, max_bytes=self._policy.max_image_bytes, field=place.field
        )

    def _examine(self, data: bytes, total_bytes: int, field: str) -> Picture:
        policy = self._policy
        if len(data) > policy.max_image_bytes:
            raise PolicyViolation(
                f"the image has {len(data)} bytes, more than the limit of "
                f"{policy.max_image_bytes}: make it smaller",
                field=field,
            )
        if total_bytes > policy.max_request_bytes:
            raise PolicyViolation(
                f"the images of the request have more than {policy.max_request_bytes} bytes "
                "together: send fewer or smaller ones",
                field=field,
            )
        header = read_header(data, max_pixels=policy.max_image_pixels, field=field)
        digest = hashlib.sha256(data).digest()
        return Picture(data, digest, header.upright_size, field)
