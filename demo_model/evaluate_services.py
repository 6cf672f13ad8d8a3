"""Scores the demo model on held-out pictures through the running services.

Start them with ``redserve up -f examples/redservice.yaml``, then run
``python -m demo_model.evaluate_services``; ``--write`` puts the score on the model card.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import platform
import sys
from typing import TYPE_CHECKING

from demo_model import card, scoring
from demo_model.evaluate import CHECKPOINT, TARGET
from redserve.wire.router_client import AnswerText, ChatMessage, Choices, RouterClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

_MAX_TOKENS = 128
_NUM_AT_ONCE = 8
"""Requests in flight: enough that batches mix several of them."""


async def evaluate_services(address: str, count: int, seed: int) -> scoring.Score:
    """Ask the router at ``address`` (host:port, gRPC) ``count`` held-out prompts.

    Raises:
        RedServeError: a request failed; a failure is not a wrong answer.
    """
    places = asyncio.Semaphore(_NUM_AT_ONCE)
    async with RouterClient(address) as client:

        async def ask(prompt: scoring.Prompt) -> tuple[scoring.Prompt, str]:
            async with places:
                return prompt, await _answer(client, prompt)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(prompt)) for prompt in scoring.held_out(count, seed)]
    return scoring.tally(task.result() for task in tasks)


async def _answer(client: RouterClient, prompt: scoring.Prompt) -> str:
    message = ChatMessage("user", (*(_png(image) for image in prompt.images), prompt.question))
    choices = Choices(temperature=0.0, max_tokens=_MAX_TOKENS)
    text = ""
    async for event in client.generate([message], choices=choices):
        if isinstance(event, AnswerText):
            text += event.text
    return text


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the score; 0 when it reaches the target, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:50051", help="gRPC address of the router")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the score on the model card")
    parser.add_argument("--commit", default="unknown", help="version of the services, for the card")
    arguments = parser.parse_args(argv)
    score = asyncio.run(evaluate_services(arguments.address, arguments.prompts, arguments.seed))
    for mistake in score.mistakes:
        print(f"{mistake.question}\n  wanted: {mistake.wanted}\n  got:    {mistake.got}")
    print("\n".join(score.lines()))
    if arguments.write:
        hardware = f"a {os.cpu_count()}-core {platform.machine()} CPU"
        card.write_service_score(CHECKPOINT, score, hardware, arguments.commit)
    return 0 if score.accuracy >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
