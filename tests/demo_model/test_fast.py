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
    return batches.build_batch(talks, batches.Encoder())


def test_positions_equal_the_librarys(batch):
    model = fast.build_model()
    is_image = batch.input_ids == model.config.image_token_id
    num_images = int(is_image.sum()) // config.TOKENS_PER_IMAGE
    grid = torch.tensor([[1, config.GRID_PATCHES, config.GRID_PATCHES]]).repeat(num_images, 1)
    expected, _ = model.model.get_rope_index(
        batch.input_ids, mm_token_type_ids=is_image.int(), image_grid_thw=grid
    )
    assert torch.equal(batch.position_ids, expected)


def test_fast_paths_equal_the_librarys_forward_pass(batch, pool):
    torch.manual_seed(0)
    model = fast.build_model().eval()
    num_images, pixels = len(batch.images), pool.pixels(batch.images)
    grid = torch.tensor([[1, config.GRID_PATCHES, config.GRID_PATCHES]]).repeat(num_images, 1)
    with torch.inference_mode():
        quick, wanted = fast.answer_logits(model, batch, fast.encode_pictures(model, pixels))
        model.set_attn_implementation("sdpa")
        del model.model.visual.patch_embed.forward
        with torch.autocast("cpu", dtype=torch.bfloat16):
            full = model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                pixel_values=pixels,
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
    trainer = train.Trainer(train.Plan(num_steps=80, warmup_steps=2), pool)
    fixed = trainer.next_batch()
    losses = [trainer.step_on(fixed) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.5


def test_the_vision_tower_rests_while_pointing_is_learnt(pool, monkeypatch):
    monkeypatch.setattr(train, "IMAGES_PER_STEP", 8)
    plan = train.Plan(num_steps=3, warmup_steps=1, seeing_until=0.3, pointing_until=0.6)
    trainer = train.Trainer(plan, pool)
    merger = trainer.model.model.visual.merger.mlp[0].weight
    language = trainer.model.model.language_model.layers[0].mlp.up_proj.weight
    moved = []
    for _ in range(3):
        before = merger.clone(), language.clone()
        trainer.step()
        moved.append((not torch.equal(before[0], merger), not torch.equal(before[1], language)))
    assert moved == [(True, True), (False, True), (True, True)]


def test_training_goes_on_from_a_saved_state_as_if_never_stopped(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "IMAGES_PER_STEP", 8)
    plan = train.Plan(num_steps=40, warmup_steps=2)
    whole = train.Trainer(plan, pool)
    for _ in range(2):
        whole.step()
    whole.save(tmp_path / "state.pt")
    expected = [whole.step() for _ in range(2)]
    resumed = train.Trainer(plan, pool)
    resumed.restore(tmp_path / "state.pt")
    assert [resumed.step() for _ in range(2)] == pytest.approx(expected, rel=1e-5)
    other = train.Trainer(train.Plan(num_steps=41), pool)
    with pytest.raises(ValueError, match="belongs to another plan"):
        other.restore(tmp_path / "state.pt")


def test_the_curriculum_grows_to_eight_images():
    plan = train.Plan(num_steps=100)
    seen = [plan.max_images(step) for step in range(100)]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (1, 8)
    assert plan.rate_factor(0) < plan.rate_factor(plan.warmup_steps)
