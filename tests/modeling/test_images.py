from __future__ import annotations

import io
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from redserve.errors import InvalidArgument, PolicyViolation
from redserve.modeling.images import decode_image, image_size
from tests.modeling.conftest import picture


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_come_back_as_they_were(kind: str) -> None:
    image = picture(20, 33)
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode_image(_encoded(image, kind, **options))
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(image))


def test_jpeg_decodes() -> None:
    data = _encoded(picture(20, 33), "JPEG")
    assert image_size(data) == (33, 20)
    assert decode_image(data).size == (33, 20)


def test_exif_orientation_is_applied() -> None:
    image = picture(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    data = _encoded(image, "PNG", exif=exif)
    upright = decode_image(data)
    assert upright.size == (20, 30)
    turned = image.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(upright), np.asarray(turned))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    data = _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data).getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
def test_every_mode_becomes_rgb_as_convert_does(mode: str) -> None:
    image = Image.new("RGBA", (9, 7), (200, 100, 50, 128))
    image = Image.new(mode, (9, 7), 1000) if mode == "I;16" else image.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    decoded = decode_image(_encoded(image, kind))
    assert decoded.mode == "RGB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow on palettes with transparency
        expected = image.convert("RGB")
    assert np.array_equal(np.asarray(decoded), np.asarray(expected))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated_files(kind: str) -> None:
    data = _encoded(picture(64, 64), kind)
    with pytest.raises(InvalidArgument) as caught:
        decode_image(data[: len(data) // 2], field="messages[0].content[1]")
    assert caught.value.field == "messages[0].content[1]"


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.4", b"<svg></svg>", b"\x00" * 999])
def test_bytes_that_are_no_image(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="no image in one of JPEG, PNG"):
        decode_image(data)


def test_formats_beyond_the_list_are_not_opened() -> None:
    with pytest.raises(InvalidArgument, match="no image in one of"):
        decode_image(_encoded(picture(8, 8), "PPM"))


def test_pixel_limit_is_checked_before_decoding() -> None:
    data = _encoded(picture(40, 50), "PNG")
    assert decode_image(data, max_pixels=2000).size == (50, 40)
    truncated = data[: len(data) // 2]  # decoding it would raise InvalidArgument
    with pytest.raises(PolicyViolation, match="50x40 = 2000 pixels"):
        decode_image(truncated, max_pixels=1999)


def test_decompression_bomb_is_a_typed_error() -> None:
    header = _encoded(Image.new("1", (8, 8)), "PNG")
    huge = (60000).to_bytes(4, "big")
    bomb = header[:16] + huge + huge + header[24:]
    crc = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    bomb = bomb[:29] + crc + bomb[33:]
    with pytest.raises(PolicyViolation):
        image_size(bomb)
