"""The model card (README.md) that lies beside the weights, and the one line filled in later."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo_model import config, pictures
from demo_model.pictures import Scene
from demo_model.questions import MAX_IMAGES, ask

if TYPE_CHECKING:
    from pathlib import Path

    from demo_model.scoring import Score

CARD = "README.md"
_SERVICE_LINE = re.compile(r"^\*\*Measured through the services:\*\* .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """What the card says about one training run.

    Attributes:
        num_parameters: parameters of the model, tied ones once.
        num_bytes: size of all files of the checkpoint but the card.
        wall_s: seconds from start to the end of training, preparing pictures included.
        cpu_s: processor seconds of the same.
        num_steps: optimiser steps.
        num_pictures: training pictures drawn.
        seed: seed of weights, pictures and conversations.
        hardware: the machine in words.
        commit: version of the script, or None when not told.
    """

    num_parameters: int
    num_bytes: int
    wall_s: float
    cpu_s: float
    num_steps: int
    num_pictures: int
    seed: int
    hardware: str
    commit: str | None


def write_card(folder: Path, facts: TrainingFacts, score: Score, score_seed: int) -> None:
    """Write the card of a fresh checkpoint; its service score reads "not measured yet"."""
    rows = [
        f"| {kind} | {_sample_question(kind)} | {right} / {asked} |"
        for kind, (right, asked) in score.by_kind.items()
    ]
    folder.joinpath(CARD).write_text(_text(facts, score, score_seed, rows), encoding="utf-8")


def write_service_score(folder: Path, score: Score, hardware: str, commit: str) -> None:
    """Fill the card's line about the score measured through the running services.

    Args:
        folder: the checkpoint's folder, with a card.
        score: what the services answered.
        hardware: the machine in words.
        commit: version of the services.

    Raises:
        ValueError: the card has no such line.
    """
    card = folder / CARD
    kinds = ", ".join(f"{kind} {right}/{asked}" for kind, (right, asked) in score.by_kind.items())
    line = (
        f"**Measured through the services:** {score.accuracy:.1%} exact "
        f"({score.num_right} of {score.num_asked}; {kinds}), on {hardware}, commit {commit}."
    )
    text, found = _SERVICE_LINE.subn(lambda _: line, card.read_text(encoding="utf-8"))
    if found != 1:
        raise ValueError(
            f"{card} has {found} lines that begin with '**Measured through the services:**'; "
            "write the card again with 'python -m demo_model'"
        )
    card.write_text(text, encoding="utf-8")


def _sample_question(kind: str) -> str:
    """A question of this kind as a user would type it."""
    scene = Scene("red", "7") if kind == "digit" else Scene("red", "star", place="centre")
    return ask(kind, 0, [scene]).text


def _text(facts: TrainingFacts, score: Score, score_seed: int, rows: list[str]) -> str:
    table = "\n".join(rows)
    version = f"commit {facts.commit}" if facts.commit else "the script of this repository"
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# The demo model

A very small vision-language model that answers questions about pictures of coloured shapes and
digits. It exists to show and test REDServe on any machine: it is an ordinary checkpoint of a
supported family (`Qwen2_5_VLForConditionalGeneration`) and is served by the very same path as a
large one. It knows nothing but the pictures and sentences below.

* {facts.num_parameters:,} parameters, bfloat16, {facts.num_bytes / 1e6:.1f} MB with its tokenizer.
* Pictures: one of {len(pictures.COLOURS)} colours; one large shape ({", ".join(pictures.SHAPES)}),
  one digit, {pictures.COUNTS[0]} to {pictures.COUNTS[-1]} equal small shapes, or one small shape in
  a corner or in the centre. Any square size; the image processor shows it at
  {config.IMAGE_PX} x {config.IMAGE_PX} pixels as {config.TOKENS_PER_IMAGE} visual tokens.
* Prompts: one to {MAX_IMAGES} pictures, which the chat template numbers, and a question.

## Accuracy

Exact text of the answer, greedy decoding, {score.num_asked} held-out prompts (seed {score_seed}) of
one to {MAX_IMAGES} pictures; no held-out picture was seen in training.

**Measured with transformers alone:** {score.accuracy:.1%} exact \
({score.num_right} of {score.num_asked}).

**Measured through the services:** not measured yet.

| kind | question | right / asked |
|---|---|---|
{table}

`python -m demo_model.evaluate --local --prompts {score.num_asked}` measures the first figure again.

## Training

`make demo-model` trains it from nothing and writes this folder; under 95 % it writes nothing.
This one: {version}, seed {facts.seed}, {facts.num_steps:,} steps on {facts.num_pictures:,} drawn
pictures, {facts.wall_s / 60:.0f} minutes of wall time ({facts.cpu_s / 60:.0f} minutes of processor
time) on {facts.hardware}.

## Limits

The tokenizer knows {len(config.vocabulary())} tokens; every other word is unknown to it. Pictures
unlike the drawn ones get confident wrong answers. Use it for demonstrations and tests only.
"""
