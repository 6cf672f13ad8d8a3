from __future__ import annotations

import random

import pytest

from demo_model import batches, config, pictures, questions


@pytest.fixture(scope="module")
def tokenizer():
    return config.build_tokenizer()


def test_every_question_and_answer_survives_the_tokenizer(tokenizer):
    rng = random.Random(0)
    for _ in range(300):
        scenes = [pictures.random_scene(rng) for _ in range(rng.randint(1, questions.MAX_IMAGES))]
        asked = questions.random_question(rng, scenes, questions.HELD_OUT_WEIGHTS)
        for text in (asked.text, asked.answer):
            ids = tokenizer.encode(text)
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text


def test_the_text_of_a_prefix_is_a_prefix_of_the_text(tokenizer):
    text = "image 1: a red circle, image 2: three blue stars"
    ids = tokenizer.encode(text)
    for length in range(len(ids) + 1):
        assert text.startswith(tokenizer.decode(ids[:length]))


@pytest.mark.parametrize(
    "typed",
    [
        "What is in image 2 ?",
        "what is in image 2?",
        "  WHAT is  in\nimage 2?  ",
        "What is in picture 2?",
    ],
)
def test_ways_of_typing_a_question_are_alike(tokenizer, typed: str):
    assert tokenizer.encode(typed) == tokenizer.encode("what is in image 2?")


def test_unknown_words_become_the_unknown_token(tokenizer):
    assert tokenizer.tokenize("what is a zebra?") == ["▁what", "▁is", "▁a", "<unk>", "?"]


def test_the_chat_template_numbers_images_over_all_turns(tokenizer):
    image = {"type": "image"}
    rendered = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "you are a helpful assistant."},
            {"role": "user", "content": [image, image, {"type": "text", "text": "what?"}]},
            {"role": "assistant", "content": "a red circle"},
            {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "image_url"}]},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert rendered == (
        "<|im_start|>system\nyou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\nimage 1: {picture}image 2: {picture}what?<|im_end|>\n"
        "<|im_start|>assistant\na red circle<|im_end|>\n"
        f"<|im_start|>user\nimage 3: {picture}and<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_training_sees_the_very_tokens_that_the_template_makes(tokenizer):
    scenes = [pictures.Scene("red", "circle"), pictures.Scene("blue", "7")]
    first = questions.ask("what", 0, scenes)
    second = questions.ask("all", 0, scenes)
    talk = batches.Conversation((0, 1), ((1, first), (1, second)), with_system_prompt=True)
    ids, spans = batches.Encoder().encode(talk)
    image = {"type": "image"}
    rendered = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": config.SYSTEM_PROMPT},
            {"role": "user", "content": [image, {"type": "text", "text": first.text}]},
            {"role": "assistant", "content": first.answer},
            {"role": "user", "content": [image, {"type": "text", "text": second.text}]},
            {"role": "assistant", "content": second.answer},
        ],
        tokenize=False,
    )
    pad = config.IMAGE_PAD
    assert ids == tokenizer.encode(rendered.replace(pad, pad * config.TOKENS_PER_IMAGE))
    answers = [tokenizer.decode(ids[begin:end]) for begin, end in spans]
    assert answers == [first.answer + config.END, second.answer + config.END]
