"""Headers and data URLs: what is said of a picture must be what the encoder will see."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib

import pytest
from PIL import Image

from redserve.errors import InvalidArgument, PolicyViolation
from redserve.modeling.images import decode_image
from redserve_router.media.data_url import decode_data_url
from redserve_router.media.header import read_header
from tests.router.cluster import picture

MAX = 10**8
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def upright_by_decoding(data: bytes) -> tuple[int, int]:
    image = decode_image(data)
    return image.height, image.width


def with_orientation(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture("red", (48, 32), kind, exif=exif)


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_by_content(kind):
    header = read_header(picture("red", (48, 32), kind), max_pixels=MAX, field="x")
    assert header.format == kind
    assert header.upright_size == (32, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_size_is_the_decoded_one_for_every_orientation(kind, orientation):
    data = with_orientation(kind, orientation)
    header = read_header(data, max_pixels=MAX, field="x")
    assert header.upright_size == upright_by_decoding(data)


def late_orientation() -> bytes:
    """A PNG whose EXIF stands behind its pixels, where only a decoder finds it."""
    data = with_orientation("PNG", 6)
    at = data.index(b"eXIf") - 4
    (length,) = struct.unpack_from(">I", data, at)
    chunk = data[at : at + 12 + length]
    rest = data.replace(chunk, b"")
    end = rest.index(b"IEND") - 4
    return rest[:end] + chunk + rest[end:]


def test_metadata_behind_the_pixels_leaves_the_size_to_the_decoder():
    data = late_orientation()
    assert upright_by_decoding(data) == (48, 32)
    assert read_header(data, max_pixels=MAX, field="x").upright_size is None


def test_orientation_in_xmp():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    data = picture("red", (48, 32), "JPEG", xmp=xmp)
    header = read_header(data, max_pixels=MAX, field="x")
    assert header.upright_size == upright_by_decoding(data)


def test_header_is_read_without_decoding():
    """A picture whose pixels are missing has a header all the same."""
    data = picture("red", (2000, 2000), "PNG")
    cut = data[: data.index(b"IDAT") + 10]
    assert read_header(cut, max_pixels=MAX, field="x").upright_size == (2000, 2000)


def test_text_after_the_pixels_counts_as_unknown():
    data = picture()
    end = data.index(b"IEND") - 4
    text = b"Comment\0hello"
    checksum = zlib.crc32(b"tEXt" + text)
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", checksum)
    assert (
        read_header(data[:end] + chunk + data[end:], max_pixels=MAX, field="x").upright_size is None
    )


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, before it gives up
@pytest.mark.parametrize("num_bytes", range(0, 60, 3))
@pytest.mark.parametrize("kind", FORMATS)
def test_cut_headers_never_raise_anything_else(kind, num_bytes):
    data = picture("red", (48, 32), kind)[:num_bytes]
    fields = []
    try:
        read_header(data, max_pixels=MAX, field="here")
    except InvalidArgument as error:
        fields.append(error.field)
    assert fields in ([], ["here"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mangled_headers_never_raise_anything_else():
    chance = random.Random(0)
    whole = [picture("red", (48, 32), kind)[:600] for kind in FORMATS]
    whole += [with_orientation(kind, 6)[:600] for kind in ("PNG", "JPEG", "WEBP", "TIFF")]
    refused = 0
    for _ in range(3000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(min(len(data), 200))] = chance.choice((0, 1, 127, 255))
        try:
            read_header(bytes(data), max_pixels=MAX, field="x")
        except InvalidArgument:
            refused += 1
    assert 0 < refused < 3000


def test_pixels_are_limited_by_the_header():
    with pytest.raises(PolicyViolation) as caught:
        read_header(picture(size=(11, 10)), max_pixels=100, field="here")
    assert "11x10 = 110 pixels" in caught.value.message


def test_other_formats_are_refused():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "ICO")
    with pytest.raises(InvalidArgument):
        read_header(buffer.getvalue(), max_pixels=MAX, field="x")


@pytest.mark.parametrize(
    "head", ["data:image/png;base64,", "data:;base64,", "DATA:image/x-thing;BASE64,"]
)
def test_data_urls(head):
    data = bytes(range(256))
    encoded = base64.b64encode(data).decode()
    assert decode_data_url(head + encoded, max_bytes=256, field="x") == data
    wrapped = "\r\n".join(encoded[i : i + 76] for i in range(0, len(encoded), 76))
    assert decode_data_url(head + wrapped, max_bytes=300, field="x") == data


def test_data_url_limits():
    for size in (99, 100, 101, 102):
        url = "data:;base64," + base64.b64encode(bytes(size)).decode()
        assert decode_data_url(url, max_bytes=size, field="x") == bytes(size)
    with pytest.raises(PolicyViolation):
        decode_data_url("data:;base64," + "A" * 400, max_bytes=100, field="x")


@pytest.mark.parametrize("url", ["data:", "data:image/png", "data:image/png,abc", "data:;base64,a"])
def test_odd_data_urls(url):
    with pytest.raises(InvalidArgument) as caught:
        decode_data_url(url, max_bytes=100, field="x")
    assert caught.value.field == "x"
