"""The whole model in one process, as plain transformers runs it: the yardstick beside the services.

Reads one JSON line per request from stdin (`{"pictures": [paths], "text": ..., "max_tokens": n}`)
and answers one JSON line with `ttft_s` and `tpot_s`. Preprocessing is part of the measured time,
as it is for the services.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image


def main() -> None:
    """Serve measurements until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = arguments.checkpoint
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        path, dtype=torch.bfloat16
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    images = transformers.AutoImageProcessor.from_pretrained(path)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_measure(model, tokenizer, images, json.loads(line))), flush=True)


@torch.inference_mode()
def _measure(model: Any, tokenizer: Any, images: Any, job: dict[str, Any]) -> dict[str, float]:
    start = time.perf_counter()
    pictures = [Image.open(Path(path)).convert("RGB") for path in job["pictures"]]
    content: list[dict[str, str]] = [{"type": "image"} for _ in pictures]
    content.append({"type": "text", "text": job["text"]})
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    pixels = images(images=pictures, return_tensors="pt")
    for grid in pixels["image_grid_thw"].tolist():
        rows = grid[0] * grid[1] * grid[2] // 4
        prompt = prompt.replace("<|image_pad|>", "<|row|>" * rows, 1)
    ids = tokenizer(prompt.replace("<|row|>", "<|image_pad|>"), return_tensors="pt")["input_ids"]
    output = model(
        input_ids=ids,
        pixel_values=pixels["pixel_values"].to(torch.bfloat16),
        image_grid_thw=pixels["image_grid_thw"],
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        use_cache=True,
        logits_to_keep=1,
    )
    token = output.logits[:, -1:].argmax(-1)
    first = time.perf_counter()
    cache, position = output.past_key_values, ids.shape[1] + int(model.model.rope_deltas[0])
    for step in range(job["max_tokens"] - 1):
        where = torch.full((3, 1, 1), position + step)
        output = model(input_ids=token, position_ids=where, past_key_values=cache, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
    end = time.perf_counter()
    return {"ttft_s": first - start, "tpot_s": (end - first) / max(1, job["max_tokens"] - 1)}


if __name__ == "__main__":
    main()
