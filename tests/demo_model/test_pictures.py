from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from demo_model import pictures
from demo_model.pictures import Scene

if TYPE_CHECKING:
    from PIL import Image


def test_the_same_seed_draws_the_same_picture_and_another_seed_another():
    scene = Scene("red", "star")
    first, again, other = (pictures.draw(scene, seed, 96).tobytes() for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_training_and_held_out_pictures_never_share_a_seed():
    assert not set(pictures.TRAINING_SEEDS) & set(pictures.HELD_OUT_SEEDS)


def test_every_scene_is_in_the_family_it_says():
    families = pictures.all_scenes()
    assert {scene.family for members in families.values() for scene in members} == set(families)
    for family, members in families.items():
        assert {scene.family for scene in members} == {family}
        assert len(set(members)) == len(members)


@pytest.mark.parametrize("family", ["shape", "digit", "count", "place"])
def test_a_picture_shows_its_colour_and_is_mostly_grey_elsewhere(family: str):
    rng = random.Random(3)
    for seed in range(12):
        scene = rng.choice(pictures.all_scenes()[family])
        image = pictures.draw(scene, seed, 64)
        assert image.size == (64, 64)
        red, green, blue = _typical_colour(image)
        wanted = pictures.COLOURS[scene.colour]
        assert max(abs(a - b) for a, b in zip((red, green, blue), wanted, strict=True)) <= 20


@pytest.mark.parametrize("place", list(pictures.PLACES))
def test_a_small_thing_stands_inside_the_cell_of_its_place(place: str):
    row, column = pictures.PLACES[place]
    for seed in range(8):
        image = pictures.draw(Scene("blue", "circle", place=place), seed, 96)
        coloured = [(x, y) for x in range(96) for y in range(96) if _is_coloured(image, x, y)]
        assert coloured
        assert {(y // 32, x // 32) for x, y in coloured} == {(row, column)}


@pytest.mark.parametrize("count", pictures.COUNTS)
def test_a_count_picture_fills_as_many_cells_as_it_says(count: int):
    for seed in range(8):
        image = pictures.draw(Scene("green", "square", count=count), seed, 96)
        centres = [(16 + 32 * column, 16 + 32 * row) for row in range(3) for column in range(3)]
        assert sum(_is_coloured(image, x, y) for x, y in centres) == count


def _typical_colour(image: Image.Image) -> tuple[int, int, int]:
    pixels = [
        _pixel(image, x, y)
        for x in range(image.width)
        for y in range(image.height)
        if _is_coloured(image, x, y)
    ]
    return max(set(pixels), key=pixels.count)


def _is_coloured(image: Image.Image, x: int, y: int) -> bool:
    channels = _pixel(image, x, y)
    return max(channels) - min(channels) > 60


def _pixel(image: Image.Image, x: int, y: int) -> tuple[int, int, int]:
    channels = image.getpixel((x, y))
    assert isinstance(channels, tuple)
    red, green, blue = channels
    return red, green, blue
