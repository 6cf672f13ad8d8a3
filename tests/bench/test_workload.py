"""Arrivals, ranges, pictures and questions: functions of a seed."""

from __future__ import annotations

import io
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from redserve.bench.arrivals import poisson
from redserve.bench.numbers import IntRange
from redserve.bench.pictures import PictureSize, draw_png, media_type
from redserve.bench.questions import Workload
from tests.strategies import effort


@effort(50)
@given(st.floats(0.01, 1000), st.integers())
def test_arrivals_begin_at_once_and_never_go_back(rate_per_s: float, seed: int) -> None:
    times = list(islice(poisson(rate_per_s, seed), 50))
    assert times[0] == 0
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert times == list(islice(poisson(rate_per_s, seed), 50))
    twice = list(islice(poisson(2 * rate_per_s, seed), 50))
    assert twice == pytest.approx([time / 2 for time in times])


def test_arrivals_are_a_poisson_process() -> None:
    times = list(islice(poisson(4.0, 7), 20_001))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    # Five standard errors: an exponential's mean and standard deviation are equal.
    assert mean == pytest.approx(0.25, rel=5 / 20_000**0.5)
    assert variance**0.5 == pytest.approx(0.25, rel=5 * (2 / 20_000) ** 0.5)
    assert poisson(4.0, 7) is not poisson(4.0, 7)
    assert list(islice(poisson(4.0, 8), 3)) != times[:3]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_above_0(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        next(poisson(rate, 0))


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_range_reads_what_it_writes(one: int, other: int) -> None:
    found = IntRange(min(one, other), max(one, other))
    assert IntRange.parse(str(found)) == found


@pytest.mark.parametrize("text", ["", "-", "4-", "-4", "8-0", "1-2-3", "1.5", "a", "²"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        IntRange.parse(text)


@effort(25)
@given(st.integers(1, 90), st.integers(1, 90), st.text(max_size=5))
def test_a_picture_is_a_png_of_its_size(width: int, height: int, seed: str) -> None:
    drawn = draw_png(PictureSize(width, height), seed)
    assert drawn == draw_png(PictureSize(width, height), seed)
    with Image.open(io.BytesIO(drawn)) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (width, height))


def test_tiles_have_colours_of_their_own() -> None:
    with Image.open(io.BytesIO(draw_png(PictureSize(64, 64), "a"))) as image:
        assert len(image.getcolors(64 * 64) or ()) == 64


def test_media_types() -> None:
    image = Image.new("RGB", (8, 8))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        assert media_type(buffer.getvalue()) == f"image/{kind.lower()}"
    assert media_type(b"text") is None
    assert media_type(b"") is None


WORKLOAD = Workload(seed=3, images=IntRange(0, 8), size=PictureSize(16, 16))


def test_questions_do_not_depend_on_their_order() -> None:
    forwards = [WORKLOAD.question(index) for index in range(6)]
    backwards = [WORKLOAD.question(index) for index in reversed(range(6))]
    assert forwards == backwards[::-1]
    assert {len(one.pictures) for one in map(WORKLOAD.question, range(200))} == set(range(9))


def test_no_drawn_picture_comes_twice() -> None:
    asked = [WORKLOAD.question(index, phase) for phase in ("run", "warm-up") for index in range(30)]
    asked += [Workload(seed=4, size=PictureSize(16, 16)).question(index) for index in range(30)]
    pictures = [picture for question in asked for picture in question.pictures]
    assert len(pictures) == len(set(pictures)) > 100
    assert len({question.text for question in asked}) == len(asked)


def test_pictures_of_a_gallery_and_a_prompt_of_ones_own() -> None:
    workload = Workload(images=IntRange(2, 2), gallery=(b"a", b"b"), prompt="what is this ?")
    asked = [workload.question(index) for index in range(30)]
    assert {picture for question in asked for picture in question.pictures} == {b"a", b"b"}
    assert {question.text for question in asked} == {"what is this ?"}
