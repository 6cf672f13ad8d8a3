from __future__ import annotations

import pytest
from PIL import Image, ImageChops, ImageStat

from demo_model import card, examples, pictures, questions, scoring
from demo_model.scoring import Score


def test_held_out_prompts_repeat_and_a_larger_count_begins_with_the_smaller():
    few, many = list(scoring.held_out(6, seed=1)), list(scoring.held_out(9, seed=1))
    for one, two in zip(few, many, strict=False):
        assert (one.question, one.answer, one.kind) == (two.question, two.answer, two.kind)
        assert [i.tobytes() for i in one.images] == [i.tobytes() for i in two.images]
    other = list(scoring.held_out(6, seed=2))
    assert [p.question for p in few] != [p.question for p in other]


def test_held_out_prompts_have_one_to_eight_pictures_of_their_own_size():
    prompts = list(scoring.held_out(16, seed=0))
    assert {len(prompt.images) for prompt in prompts} == set(range(1, 9))
    sizes = {image.size for prompt in prompts for image in prompt.images}
    assert sizes == {(scoring.HELD_OUT_PX, scoring.HELD_OUT_PX)}


def test_a_score_counts_exact_answers_only():
    prompts = list(scoring.held_out(40, seed=0))
    right = {id(prompt.images): prompt.answer for prompt in prompts}
    perfect = scoring.score(prompts, lambda images, _: f" {right[id(images)]}\n")
    assert perfect.accuracy == 1
    assert perfect.num_asked == 40
    near = scoring.score(prompts, lambda images, _: right[id(images)] + ".")
    assert near.num_right == 0
    assert near.mistakes[0].wanted == prompts[0].answer
    assert Score({}).accuracy == 0


def test_the_service_score_is_written_into_its_one_line(tmp_path):
    facts = card.TrainingFacts(1_000_000, 2_000_000, 60, 60, 10, 100, 0, "a 2-core CPU", None)
    every_kind = Score(dict.fromkeys(questions.WORDINGS, (9, 10)))
    card.write_card(tmp_path, facts, every_kind, score_seed=0)
    before = (tmp_path / "README.md").read_text()
    assert "{" not in before
    assert "**Measured through the services:** not measured yet." in before
    for right in (95, 96):  # a second measurement replaces the first
        score = Score({"all": (right - 50, 50), "what": (50, 50)})
        card.write_service_score(tmp_path, score, "a 2-core CPU", "abc123")
    after = (tmp_path / "README.md").read_text()
    assert "services:** 96.0% exact (96 of 100; all 46/50, what 50/50), on a 2-core CPU" in after
    assert len(after.splitlines()) == len(before.splitlines())
    (tmp_path / "README.md").write_text("# another card\n")
    with pytest.raises(ValueError, match="has 0 lines"):
        card.write_service_score(tmp_path, score, "a CPU", "abc123")


def test_the_demonstration_asks_one_a_few_and_eight_images():
    listed = examples.entries()
    assert {1, 2, 4, 8} <= {len(entry.images) for entry in listed}
    eight = [entry for entry in listed if len(entry.images) == 8]
    assert any(entry.question == "describe all images." for entry in eight)
    kinds = {item.kind for item in examples.QUESTIONS}
    assert kinds == set(questions.WORDINGS)


def test_the_demonstrations_pictures_are_held_out_and_committed(tmp_path):
    assert len(examples.IMAGES) >= 8
    assert all(seed in pictures.HELD_OUT_SEEDS for seed in examples.seeds())
    examples.write_examples(tmp_path)
    committed = examples.FOLDER / "questions.yaml"
    assert committed.read_text() == (tmp_path / "questions.yaml").read_text()
    for name in examples.IMAGES:
        old, new = (
            Image.open(folder / "images" / f"{name}.png").convert("RGB")
            for folder in (examples.FOLDER, tmp_path)
        )
        # Another version of Pillow may move an edge by a pixel, not a picture.
        difference = ImageStat.Stat(ImageChops.difference(old, new)).mean
        assert max(difference) < 2, f"{name}.png is stale"
