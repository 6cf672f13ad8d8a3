from __future__ import annotations

import random
import re

import pytest

from demo_model import pictures, questions
from demo_model.pictures import Scene

SCENES = (
    Scene("red", "circle"),
    Scene("orange", "7"),
    Scene("green", "square", count=3),
    Scene("blue", "star", place="top left"),
    Scene("purple", "cross", place="centre"),
)


@pytest.mark.parametrize(
    ("kind", "target", "text", "answer"),
    [
        ("what", 0, "what is in image 1?", "a red circle"),
        ("what", 1, "what is in image 2?", "an orange digit 7"),
        ("what", 2, "what is in image 3?", "three green squares"),
        ("what", 3, "what is in image 4?", "a small blue star at the top left"),
        ("colour", 2, "what colour are the squares in image 3?", "green"),
        ("colour", 1, "what colour is the digit in image 2?", "orange"),
        ("digit", 1, "which digit is in image 2?", "7"),
        ("count", 2, "how many squares are in image 3?", "three"),
        ("count", 0, "how many circles are in image 1?", "one"),
        ("where", 3, "where is the star in image 4?", "at the top left"),
        ("where", 4, "where is the cross in image 5?", "in the centre"),
        ("number", 0, "how many images are there?", "five"),
    ],
)
def test_question_and_answer_follow_from_the_scenes(kind, target, text, answer):
    asked = questions.ask(kind, target, SCENES)
    assert (asked.text, asked.answer) == (text, answer)


def test_a_description_of_all_images_names_each_in_order():
    answer = questions.ask("all", 0, SCENES[:3]).answer
    assert (
        answer == "image 1: a red circle, image 2: an orange digit 7, image 3: three green squares"
    )


def test_a_description_tells_every_two_scenes_apart():
    scenes = [scene for members in pictures.all_scenes().values() for scene in members]
    assert len({questions.describe(scene) for scene in scenes}) == len(scenes)


def test_a_question_is_refused_where_it_has_no_one_answer():
    with pytest.raises(ValueError, match="cannot ask 'where' about picture 0"):
        questions.ask("where", 0, SCENES)
    with pytest.raises(ValueError, match="unknown question kind 'why'"):
        questions.targets("why", SCENES)


def test_random_questions_never_leave_a_gap_and_use_every_kind():
    rng = random.Random(0)
    kinds = set()
    for _ in range(400):
        scenes = [pictures.random_scene(rng) for _ in range(rng.randint(1, questions.MAX_IMAGES))]
        asked = questions.random_question(rng, scenes, questions.HELD_OUT_WEIGHTS)
        kinds.add(asked.kind)
        assert "{" not in asked.text + asked.answer
        named = [int(k) for k in re.findall(r"image (\d)", asked.text + " " + asked.answer)]
        assert all(1 <= k <= len(scenes) for k in named)
    assert kinds == set(questions.WORDINGS)
