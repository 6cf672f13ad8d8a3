"""Pictures before the model: sizes as they will be seen, and preparing each of them once."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import TYPE_CHECKING

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from redserve.errors import InvalidArgument, PolicyViolation
from redserve.modeling.images import decode_image
from redserve.telemetry.clock import now_ns
from redserve_encoder.byte_lru import ByteLru
from redserve_encoder.fake import FakeVision
from redserve_encoder.pictures import ContentMissingError, Pictures
from redserve_encoder.sizes import upright_size
from tests.encoder.support import picture, sha, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve_encoder.vision import Prepared

MAX_PIXELS = 1_000_000


def turned(form: str, orientation: int) -> bytes:
    """A 30x10 picture that its EXIF data turns."""
    image = Image.new("RGB", (30, 10))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    image.save(file, form, exif=exif)
    return file.getvalue()


def png_with_late_exif() -> bytes:
    """The orientation stands behind the pixels, which Pillow reads only when it decodes them."""
    whole = turned("PNG", 6)
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4])
    chunk, rest = whole[start:end], whole[:start] + whole[end:]
    tail = rest.index(b"IEND") - 4
    return rest[:tail] + chunk + rest[tail:]


def png_with_xmp() -> bytes:
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"></x:xmpmeta>'
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    file = io.BytesIO()
    Image.new("RGB", (30, 10)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


CASES = {
    **{f"{form}-{turn}": turned(form, turn) for form in ("JPEG", "PNG", "WEBP", "TIFF")
       for turn in (1, 3, 6, 8)},
    "png-late": png_with_late_exif(),
    "png-xmp": png_with_xmp(),
    "gif": picture(30, 10, form="GIF"),
    "bmp": picture(30, 10, form="BMP"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_size_is_that_of_the_decoded_picture(name: str) -> None:
    upright = decode_image(CASES[name])
    assert upright_size(CASES[name], max_pixels=MAX_PIXELS) == (upright.height, upright.width)


def test_the_cases_really_turn() -> None:
    turning = ("JPEG-6", "PNG-8", "WEBP-6", "TIFF-8", "png-late", "png-xmp")
    assert {upright_size(CASES[name], max_pixels=MAX_PIXELS) for name in turning} == {(30, 10)}


def test_sizes_of_what_is_no_picture_or_too_large() -> None:
    with pytest.raises(InvalidArgument, match="picture"):
        upright_size(b"GIF89a but not really", max_pixels=MAX_PIXELS)
    with pytest.raises(PolicyViolation, match="30x10"):
        upright_size(CASES["gif"], max_pixels=299)


class SlowVision(FakeVision):
    """Counts preparations and holds them up."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[bytes] = []
        self.go_on = threading.Event()

    def prepare(self, data: bytes) -> Prepared:
        self.begun.append(sha(data))
        assert self.go_on.wait(20)
        return super().prepare(data)


Slow = tuple[SlowVision, Pictures]


@pytest.fixture
def slow() -> Iterator[Slow]:
    vision = SlowVision()
    pictures = Pictures(vision, num_threads=1, now_ns=now_ns)
    yield vision, pictures
    vision.go_on.set()
    pictures.close()


async def test_a_picture_is_prepared_once_for_all_who_ask(slow: Slow) -> None:
    vision, pictures = slow
    data = picture()
    asking = [asyncio.create_task(pictures.prepared(sha(data), data)) for _ in range(3)]
    await until(lambda: len(vision.begun) == 1)
    asking.pop().cancel()
    vision.go_on.set()
    first, second = await asyncio.gather(*asking)
    assert first is second
    assert await pictures.prepared(sha(data), None) is first
    assert len(vision.begun) == 1
    assert first.start_ns < first.end_ns
    pictures.forget_pixels(sha(data))
    with pytest.raises(ContentMissingError):
        await pictures.prepared(sha(data), None)


async def test_what_nobody_waits_for_any_more_is_not_begun(slow: Slow) -> None:
    vision, pictures = slow
    first, second = picture(shade=1), picture(shade=2)
    running = asyncio.create_task(pictures.prepared(sha(first), first))
    await until(lambda: vision.begun == [sha(first)])
    waiting = asyncio.create_task(pictures.prepared(sha(second), second))
    await asyncio.sleep(0)
    waiting.cancel()
    # Whoever asks in the same moment is not given the cancelled one.
    again = asyncio.create_task(pictures.prepared(sha(second), second))
    for _ in range(3):  # the cancellation passes from task to future to thread pool
        await asyncio.sleep(0)
    vision.go_on.set()
    assert (await again).prepared.metadata.num_rows == 4
    await running
    assert vision.begun == [sha(first), sha(second)]


async def test_a_failure_reaches_everybody_and_is_not_remembered(slow: Slow) -> None:
    vision, pictures = slow
    damaged = picture(64, 64, form="JPEG")[:-40]
    vision.go_on.set()
    asking = [pictures.prepared(sha(damaged), damaged) for _ in range(2)]
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [InvalidArgument] * 2
    assert not pictures.has_pixels(sha(damaged))


async def test_prepared_pixels_and_pictures_are_bounded_by_bytes() -> None:
    vision = FakeVision()
    pictures = Pictures(vision, num_threads=1, now_ns=now_ns, prepared_bytes=7000, data_bytes=400)
    many = [picture(shade=shade) for shade in range(6)]  # 3 KiB of pixels, about 100 bytes each
    for data in many:
        await pictures.admit(sha(data), data)
        await pictures.prepared(sha(data), data)
    assert [pictures.has_pixels(sha(data)) for data in many] == [False] * 4 + [True] * 2
    assert pictures.recall(sha(many[0])) is None
    assert pictures.recall(sha(many[5])) == many[5]
    pictures.close()


def test_byte_lru() -> None:
    lru: ByteLru[str] = ByteLru(10)
    lru.put(b"a", "a", 4)
    lru.put(b"b", "b", 4)
    assert lru.get(b"a") == "a"
    lru.put(b"c", "c", 4)
    assert (b"a" in lru, b"b" in lru, b"c" in lru) == (True, False, True)
    lru.put(b"a", "A", 1)
    assert lru.num_bytes == 5
    lru.put(b"huge", "huge", 99)
    assert len(lru) == 1
    assert lru.get(b"huge") == "huge"
    lru.pop(b"huge")
    lru.pop(b"never")
    assert lru.num_bytes == 0
