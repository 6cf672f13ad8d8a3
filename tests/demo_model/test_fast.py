"""Training takes shortcuts; they must compute what the library's own forward pass computes."""

from __future__ import annotations

import random

import pytest
import torch

from demo_model import batches, config, fast, train


@pytest.fixture(scope="module")
def pool():
    return batches.prepare_pool(60, range(60), random.Random(0))


@pytest.fixture(scope="module")
def batch(pool):
    rng = random.Random(1)
    talks = [batches.random_conversation(rng, pool, 3) for _ in range(4)]
    return batches.build_batch(talks, pool, batches.Encoder())


def test_positions_equal_the_librarys(batch):
    model = fast.build_model()
    is_image = batch.input_ids == model.config.image_token_id
    num_images = int(is_image.sum()) // config.TOKENS_PER_IMAGE
    grid = torch.tensor([[1, config.GRID_PATCHES, config.GRID_PATCHES]]).repeat(num_images, 1)
    expected, _ = model.model.get_rope_index(
        batch.input_ids, mm_token_type_ids=is_image.int(), image_grid_thw=grid
    )
    assert torch.equal(batch.position_ids, expected)


def test_fast_paths_equal_the_librarys_forward_pass(batch):
    torch.manual_seed(0)
    model = fast.build_model().eval()
    num_images = batch.pixels.shape[0] // config.GRID_PATCHES**2
    grid = torch.tensor([[1, config.GRID_PATCHES, config.GRID_PATCHES]]).repeat(num_images, 1)
    with torch.inference_mode():
        quick, wanted = fast.answer_logits(model, batch)
        model.set_attn_implementation("sdpa")
        del model.model.visual.patch_embed.forward
        with torch.autocast("cpu", dtype=torch.bfloat16):
            full = model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                pixel_values=batch.pixels,
                image_grid_thw=grid,
                use_cache=False,
            ).logits.float()
    counted = batch.labels[:, 1:] != batches.IGNORED
    full = full[:, :-1][counted]
    assert torch.equal(wanted, batch.labels[:, 1:][counted])
    assert quick.shape == full.shape
    # bfloat16 inside: agreement up to rounding, far below the spread of the logits.
    assert (quick - full).abs().mean() < 0.05 * full.std()


def test_labels_and_weights_cover_exactly_the_answers(batch):
    for row, spans in enumerate(batch.answers):
        inside = torch.zeros(batch.labels.shape[1], dtype=torch.bool)
        for first, last in spans:
            inside[first:last] = True
            assert batch.input_ids[row, last - 1] == config.vocabulary()[config.END]
        assert torch.equal(batch.labels[row] != batches.IGNORED, inside)
        assert torch.equal(batch.weights[row] > 0, inside)


def test_a_few_steps_lower_the_loss(pool, monkeypatch):
    monkeypatch.setattr(train, "IMAGES_PER_STEP", 16)
    torch.manual_seed(0)
    model, plan = fast.build_model(), train.Plan(num_steps=8, warmup_steps=2)
    encoder = batches.Encoder()
    fixed = next(train.training_batches(plan, pool, encoder))
    losses = list(train.fit(model, plan, [fixed] * 8))
    assert losses[-1] < losses[0] - 0.5


def test_the_curriculum_grows_to_eight_images():
    plan = train.Plan(num_steps=100)
    seen = [plan.max_images(step) for step in range(100)]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (1, 8)
    assert plan.rate_factor(0) < plan.rate_factor(plan.warmup_steps)
