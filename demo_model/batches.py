"""Training batches: a pool of prepared pictures and random conversations about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demo_model import config, pictures, questions

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from demo_model.pictures import Scene
    from demo_model.questions import Question

IGNORED = -100
"""Label of a token that the loss skips."""

TRAINING_WEIGHTS = {
    "what": 4.0,
    "colour": 1.0,
    "digit": 1.5,
    "count": 3.0,
    "where": 2.0,
    "number": 0.5,
}
"""Kinds of all turns but the last, which mostly asks for a description of everything."""

_MAX_SINGLE_QUESTIONS = 6
_CANVASES_PX = (96, 128, 192, 256)


@dataclass(frozen=True, slots=True)
class Pool:
    """Pictures that went through the real image processor once.

    Attributes:
        by_family: family to the (index, scene) pairs of its pictures.
        pixels: float16 [pictures, patches per picture, patch features].
    """

    by_family: dict[str, list[tuple[int, Scene]]]
    pixels: Tensor

    def sample(self, rng: random.Random, count: int) -> list[tuple[int, Scene]]:
        """``count`` pictures, each from a random family."""
        families = tuple(self.by_family)
        return [rng.choice(self.by_family[rng.choice(families)]) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Pictures, and questions about them in turns.

    Attributes:
        images: pool index of each picture.
        turns: how many pictures the turn adds, and its question.
        with_system_prompt: whether a system message comes first.
    """

    images: tuple[int, ...]
    turns: tuple[tuple[int, Question], ...]
    with_system_prompt: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input.

    Attributes:
        input_ids: int64 [conversations, tokens], padded on the right.
        labels: as input_ids, ``IGNORED`` outside the answers.
        weights: float32, as input_ids: what a token's loss counts, 0 outside the answers.
        position_ids: int64 [3, conversations, tokens] (temporal, height, width).
        pixels: float32 [pictures * patches, patch features], in the order of the placeholders.
        answers: for each conversation the [first, last) token span of every answer, its end token
            included.
    """

    input_ids: Tensor
    labels: Tensor
    weights: Tensor
    position_ids: Tensor
    pixels: Tensor
    answers: tuple[tuple[tuple[int, int], ...], ...]


def prepare_pool(num_pictures: int, seeds: range, rng: random.Random) -> Pool:
    """Draw pictures of every family in turn and run the image processor over them."""
    processor = config.build_image_processor()
    scenes = {family: list(members) for family, members in pictures.all_scenes().items()}
    by_family: dict[str, list[tuple[int, Scene]]] = {family: [] for family in scenes}
    parts: list[Tensor] = []
    chunk = []
    for index in range(num_pictures):
        family = tuple(scenes)[index % len(scenes)]
        scene = rng.choice(scenes[family])
        by_family[family].append((index, scene))
        chunk.append(pictures.draw(scene, seeds[index], rng.choice(_CANVASES_PX)))
        if len(chunk) == 256 or index == num_pictures - 1:
            parts.append(processor(images=chunk, return_tensors="pt")["pixel_values"].half())
            chunk = []
    pixels = torch.cat(parts)
    return Pool(by_family, pixels.view(num_pictures, config.GRID_PATCHES**2, -1))


def random_conversation(rng: random.Random, pool: Pool, num_images: int) -> Conversation:
    """Questions in turns about ``num_images`` pictures.

    Most conversations ask several single questions, which is cheap beside the pictures, and end
    with a description of everything; some ask for the description at once, and some show a part
    of the pictures only in the second turn.
    """
    chosen = pool.sample(rng, num_images)
    scenes = [scene for _, scene in chosen]
    ends_with_all = rng.random() < 0.7
    at_once = ends_with_all and rng.random() < 0.25
    num_single = 0 if at_once else min(_MAX_SINGLE_QUESTIONS, num_images + 1)
    first = num_images
    if num_single > 1 and num_images > 1 and rng.random() < 0.15:
        first = rng.randint(1, num_images - 1)
    turns: list[tuple[int, Question]] = []
    asked: set[str] = set()
    for turn in range(num_single):
        shown = scenes[:first] if turn == 0 else scenes
        question = questions.random_question(rng, shown, TRAINING_WEIGHTS)
        added = (first, num_images - first)[turn] if turn < 2 else 0
        # A repeated text is a new question only where it brings new pictures.
        if added or question.text not in asked:
            turns.append((added, question))
            asked.add(question.text)
    if ends_with_all:
        wording = rng.choice(questions.WORDINGS["all"])
        turns.append((num_images if at_once else 0, questions.ask("all", 0, scenes, wording)))
    images = tuple(index for index, _ in chosen)
    return Conversation(images, tuple(turns), with_system_prompt=rng.random() < 0.15)


class Encoder:
    """Turns conversations into token ids exactly as the chat template and tokenizer would."""

    def __init__(self) -> None:
        """Build the tokenizer; encoded sentences are remembered."""
        self._tokenizer = config.build_tokenizer()
        self._known: dict[str, list[int]] = {}

    def encode(self, conversation: Conversation) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, placeholders expanded, and the span of each answer with its end token."""
        ids: list[int] = []
        if conversation.with_system_prompt:
            ids += self._ids(f"{config.START}system\n{config.SYSTEM_PROMPT}{config.END}\n")
        spans: list[tuple[int, int]] = []
        seen = 0
        for added, question in conversation.turns:
            ids += self._ids(f"{config.START}user\n")
            for number in range(seen + 1, seen + added + 1):
                ids += self._ids(f"image {number}: {config.VISION_START}")
                ids += self._ids(config.IMAGE_PAD) * config.TOKENS_PER_IMAGE
                ids += self._ids(config.VISION_END)
            seen += added
            ids += self._ids(question.text)
            ids += self._ids(f"{config.END}\n{config.START}assistant\n")
            answer = self._ids(question.answer) + self._ids(config.END)
            spans.append((len(ids), len(ids) + len(answer)))
            ids += answer
        return ids, spans

    def _ids(self, text: str) -> list[int]:
        ids = self._known.get(text)
        if ids is None:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            if len(self._known) < 100_000:
                self._known[text] = ids
        return ids


def build_batch(conversations: Sequence[Conversation], pool: Pool, encoder: Encoder) -> Batch:
    """Pad conversations to one length and gather their pictures."""
    encoded = [encoder.encode(conversation) for conversation in conversations]
    length = max(len(ids) for ids, _ in encoded)
    pad = config.vocabulary()[config.PAD]
    input_ids = torch.full((len(encoded), length), pad)
    labels = torch.full((len(encoded), length), IGNORED)
    weights = torch.zeros(len(encoded), length)
    for row, (ids, spans) in enumerate(encoded):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        for first, last in spans:
            labels[row, first:last] = input_ids[row, first:last]
            # Between "each token counts alike" and "each answer counts alike": descriptions of
            # eight pictures would otherwise drown the short answers.
            weights[row, first:last] = (last - first) ** -0.5
    images = [index for conversation in conversations for index in conversation.images]
    pixels = pool.pixels[images].float()
    return Batch(
        input_ids=input_ids,
        labels=labels,
        weights=weights,
        position_ids=rope_positions(input_ids),
        pixels=pixels.view(-1, pixels.shape[-1]),
        answers=tuple(tuple(spans) for _, spans in encoded),
    )


def rope_positions(input_ids: Tensor) -> Tensor:
    """The family's three-axis positions, for pictures that all have the same square grid.

    Args:
        input_ids: int64 [conversations, tokens] with expanded placeholders.

    Returns:
        int64 [3, conversations, tokens], equal to ``get_rope_index`` on the unpadded part.
    """
    side = config.GRID_PATCHES // config.MERGE
    is_image = input_ids == config.vocabulary()[config.IMAGE_PAD]
    within = (is_image.long().cumsum(1) - 1) % config.TOKENS_PER_IMAGE
    within = torch.where(is_image, within, 0)
    # A picture advances the position by its side once, after its last token.
    ends = is_image & (within == config.TOKENS_PER_IMAGE - 1)
    advance = torch.where(is_image, torch.where(ends, side, 0), 1)
    base = advance.cumsum(1) - advance
    rows = torch.where(is_image, within // side, 0)
    columns = torch.where(is_image, within % side, 0)
    return torch.stack([base, base + rows, base + columns])
