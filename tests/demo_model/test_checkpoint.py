"""The committed checkpoint is small, ordinary and good."""

from __future__ import annotations

import json

import pytest
from transformers import AutoImageProcessor, AutoTokenizer

from demo_model import __main__ as publish
from demo_model import config, evaluate, examples, scoring

CHECKPOINT = evaluate.CHECKPOINT


@pytest.fixture(scope="module")
def model():
    return evaluate.LocalModel(CHECKPOINT)


def test_the_checkpoint_is_small_and_needs_no_code_of_its_own():
    files = [file for file in CHECKPOINT.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= publish.MAX_BYTES
    assert not [file for file in files if file.suffix == ".py"]
    written = json.loads((CHECKPOINT / "config.json").read_text())
    assert written["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert "auto_map" not in written


def test_tokenizer_and_image_processor_load_as_those_of_any_checkpoint():
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert tokenizer.get_vocab() == config.vocabulary()
    assert tokenizer.eos_token == config.END
    assert tokenizer.chat_template == config.build_tokenizer().chat_template
    processor = AutoImageProcessor.from_pretrained(CHECKPOINT, backend="pil")
    assert processor.to_dict() == config.build_image_processor().to_dict()


def test_held_out_questions_are_answered_exactly(model):
    score = scoring.score(scoring.held_out(40, seed=7), model.answer)
    assert score.accuracy >= 0.9, score.mistakes


def test_every_question_of_the_demonstration_is_answered_exactly(model):
    for entry in examples.entries():
        assert model.answer(entry.open_images(examples.FOLDER), entry.question) == entry.answer


def test_the_model_card_states_what_was_measured():
    text = (CHECKPOINT / "README.md").read_text()
    assert "**Measured with transformers alone:**" in text
    assert "**Measured through the services:**" in text
