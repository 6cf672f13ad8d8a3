"""``python -m demo_model``: train the demo model, measure it, and publish it only if it is good."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

from demo_model import card, config, evaluate
from demo_model.train import Plan, train

if TYPE_CHECKING:
    from collections.abc import Sequence

SCORE_SEED = 0
MAX_BYTES = 8_000_000
"""The weights lie in the repository, so the checkpoint must stay small."""


def save_checkpoint(model: Qwen2_5_VLForConditionalGeneration, folder: Path) -> None:
    """Write an ordinary checkpoint: bfloat16 weights, tokenizer, image processor, template."""
    ids = config.vocabulary()
    model.generation_config = GenerationConfig(
        eos_token_id=ids[config.END], pad_token_id=ids[config.PAD], do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    config.build_tokenizer().save_pretrained(folder)
    config.build_image_processor().save_pretrained(folder)


def hardware() -> str:
    """This machine in words, for the model card."""
    return f"a {os.cpu_count()}-core {platform.machine()} CPU, {torch.get_num_threads()} thread(s)"


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, publish; 0 when published, 1 when the model was not good enough."""
    arguments = _parse(argv)
    torch.set_num_threads(arguments.threads)
    wall, cpu = time.monotonic(), time.process_time()
    plan = Plan(arguments.steps, arguments.pictures, arguments.seed)
    model = train(plan)
    wall_s, cpu_s = time.monotonic() - wall, time.process_time() - cpu
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_checkpoint(model, folder)
        num_bytes = sum(file.stat().st_size for file in folder.iterdir())
        score = evaluate.evaluate_local(folder, arguments.prompts, SCORE_SEED)
        print("\n".join(score.lines()))
        if score.accuracy < evaluate.TARGET or num_bytes > MAX_BYTES:
            print(
                f"Not published: {score.accuracy:.1%} exact answers ({evaluate.TARGET:.0%} wanted) "
                f"in {num_bytes} bytes (at most {MAX_BYTES}); try another --seed or more --steps."
            )
            return 1
        facts = card.TrainingFacts(
            num_parameters=num_parameters,
            num_bytes=num_bytes,
            wall_s=wall_s,
            cpu_s=cpu_s,
            num_steps=plan.num_steps,
            num_pictures=plan.num_pictures,
            seed=plan.seed,
            hardware=hardware(),
            commit=arguments.commit,
        )
        card.write_card(folder, facts, score, SCORE_SEED)
        shutil.copytree(folder, arguments.out, dirs_exist_ok=True)
    print(f"Published in {arguments.out} ({num_bytes / 1e6:.2f} MB, {wall_s / 60:.0f} minutes)")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m demo_model", description=__doc__)
    parser.add_argument("--out", type=Path, default=evaluate.CHECKPOINT)
    parser.add_argument("--steps", type=int, default=usual.num_steps)
    parser.add_argument("--pictures", type=int, default=usual.num_pictures)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--prompts", type=int, default=800, help="held-out prompts of the gate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--commit", help="version of this script, for the model card")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
