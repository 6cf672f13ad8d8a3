from __future__ import annotations

import random

import pytest

from demo_model import batches, pictures


@pytest.fixture(scope="module")
def pool():
    return batches.prepare_pool(40, range(40), random.Random(0))


def test_a_pool_holds_every_family_and_knows_what_each_picture_shows(pool):
    assert set(pool.by_family) == set(pictures.all_scenes())
    listed = [pair for members in pool.by_family.values() for pair in members]
    assert sorted(index for index, _ in listed) == list(range(40))
    assert all(scene.family == family for family, m in pool.by_family.items() for _, scene in m)
    assert pool.pixels.shape[0] == 40


@pytest.mark.parametrize("num_images", range(1, 9))
def test_a_conversation_shows_all_its_pictures_and_asks_only_about_those_shown(pool, num_images):
    rng = random.Random(num_images)
    for _ in range(100):
        talk = batches.random_conversation(rng, pool, num_images)
        assert len(talk.images) == num_images
        assert sum(added for added, _ in talk.turns) == num_images
        shown = 0
        for added, question in talk.turns:
            shown += added
            later = [f"image {k}" for k in range(shown + 1, num_images + 1)]
            assert not any(name in question.text + question.answer for name in later)
