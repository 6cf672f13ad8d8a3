"""`redserve chat`: ask a running service, with pictures; once or in a conversation."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redserve.cli.common import add_target, read_image, router_address, show_what_can_be_shown
from redserve.cli.trace import draw
from redserve.errors import ConfigError, RedServeError
from redserve.telemetry.foreign import printable
from redserve.wire.router_client import (
    AnswerFinished,
    AnswerText,
    ChatMessage,
    Choices,
    RouterClient,
)

if TYPE_CHECKING:
    import argparse

    from redserve.cli.common import Subparsers
    from redserve.slo import Judged, Tally

_HELP = "/image PATH adds a picture to the next question, /clear forgets everything, /quit ends"


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "chat",
        help="ask a running service",
        description="Ask once, or talk when PROMPT is missing.",
    )
    parser.add_argument("prompt", nargs="?", metavar="PROMPT")
    parser.add_argument(
        "--image",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a picture to ask about; may be repeated",
    )
    parser.add_argument("--timeline", action="store_true", help="show where the time went")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens of an answer")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="0 takes the likeliest token"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same answer")
    add_target(parser)
    parser.set_defaults(run=run)


@dataclass(slots=True)
class Conversation:
    """What was said so far, and how to ask.

    Attributes:
        address: gRPC address of the router.
        choices: How tokens are chosen.
        timeline: Whether each answer is followed by its timeline.
        messages: Turns so far.
        images: Pictures for the next question.
    """

    address: str
    choices: Choices
    timeline: bool
    messages: list[ChatMessage] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)

    async def ask(self, prompt: str) -> None:
        """Print the answer as it comes; it becomes part of the conversation when it is whole."""
        question = ChatMessage("user", (*self.images, prompt))
        answer, finished = await self._stream([*self.messages, question])
        self.messages += [question, ChatMessage("assistant", (answer,))]
        self.images.clear()
        if finished is None:
            return
        if finished.timeline is not None:
            print(draw(finished.timeline))
        if finished.judged is not None and finished.judged.events:
            print(promises_line(finished.judged))

    async def _stream(self, messages: list[ChatMessage]) -> tuple[str, AnswerFinished | None]:
        parts: list[str] = []
        finished: AnswerFinished | None = None
        try:
            async with RouterClient(self.address) as client:
                events = client.generate(
                    messages, choices=self.choices, include_timeline=self.timeline
                )
                async with aclosing(events) as answer:
                    async for event in answer:
                        if isinstance(event, AnswerText):
                            parts.append(event.text)
                            print(printable(event.text), end="", flush=True)
                        elif isinstance(event, AnswerFinished):
                            finished = event
        finally:
            print(flush=True)
        return "".join(parts), finished


def promises_line(judged: Judged) -> str:
    """What the router counted of an answer for the promises of the manifest."""
    return "  promises: " + ", ".join(f"{slo} {_outcome(tally)}" for slo, tally in judged.events)


def _outcome(tally: Tally) -> str:
    num_events = tally.good + tally.bad
    if num_events > 1:
        return f"kept {tally.good} of {num_events} times"
    return "kept" if tally.good else "broken"


def run(arguments: argparse.Namespace) -> int:
    """Ask."""
    show_what_can_be_shown()
    conversation = Conversation(
        address=router_address(arguments),
        choices=Choices(
            temperature=arguments.temperature,
            max_tokens=arguments.max_tokens,
            seed=arguments.seed,
        ),
        timeline=arguments.timeline,
        images=[read_image(path) for path in arguments.image],
    )
    prompt = arguments.prompt
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    if prompt is None:
        _talk(conversation)
        return 0
    if not prompt:
        raise ConfigError("the prompt is empty; write a question")
    asyncio.run(conversation.ask(prompt))
    return 0


def _talk(conversation: Conversation) -> None:
    """Read questions until Ctrl-D; Ctrl-C stops an answer, or ends at an empty prompt."""
    print(_HELP)
    with asyncio.Runner() as runner:
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if line == "/quit":
                return
            try:
                if not _command(line, conversation) and line:
                    runner.run(conversation.ask(line))
            except KeyboardInterrupt:
                print("(stopped)")
            except RedServeError as error:
                print(f"redserve: {printable(str(error))}", file=sys.stderr)


def _command(line: str, conversation: Conversation) -> bool:
    """Do what a line that begins with a slash says; False when it is a question."""
    if not line.startswith("/"):
        return False
    word, _, rest = line.partition(" ")
    if word == "/image" and rest.strip():
        conversation.images.append(read_image(Path(rest.strip()).expanduser()))
        print(f"({len(conversation.images)} picture(s) go with the next question)")
    elif word == "/clear":
        conversation.messages.clear()
        conversation.images.clear()
    else:
        print(_HELP)
    return True
