"""The demonstration: start a service, ask about pictures in two ways, see the overlap, stop.

    python examples/demo.py [--http-port PORT] [--grpc-port PORT]

Exit status 0 means: every answer was right, and no process is left.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from redserve.local.state import running_services
from redserve.spec.settings import runtime_directory
from redserve.telemetry.render import render_text
from redserve.wire.router_client import (
    AnswerFinished,
    AnswerText,
    ChatMessage,
    Choices,
    RouterClient,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openai.types.chat import ChatCompletionContentPartParam

    from redserve.local.state import ServiceState
    from redserve.telemetry.timeline import Timeline

HERE = Path(__file__).resolve().parent
WARM_UP = "what is in image 1?"
MAX_TOKENS = 128
STOP_LIMIT_S = 60.0


@dataclass(frozen=True)
class Question:
    """A question about pictures, and the one right answer."""

    images: tuple[Path, ...]
    text: str
    answer: str


@dataclass(frozen=True)
class Asked:
    """How a question went.

    Attributes:
        question: What was asked.
        way: "gRPC" or "OpenAI".
        answer: What came back.
        ttft_s: Time to the first text as the client saw it, seconds.
        timeline: Where the time went, if the way tells.
    """

    question: Question
    way: str
    answer: str
    ttft_s: float
    timeline: Timeline | None = None

    @property
    def right(self) -> bool:
        """Whether the answer is the expected one, word for word."""
        return self.answer.strip() == self.question.answer


def main() -> int:
    """Run the demonstration; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http-port", help="instead of 8000")
    parser.add_argument("--grpc-port", help="instead of 50051")
    parser.add_argument("--file", type=Path, default=HERE / "redservice.yaml", help="the manifest")
    arguments = parser.parse_args()
    questions = load_questions(HERE / "questions.yaml")
    flags = [
        word
        for flag, value in (
            ("--http-port", arguments.http_port),
            ("--grpc-port", arguments.grpc_port),
        )
        if value is not None
        for word in (flag, value)
    ]
    left: list[int] = []
    with service(["-f", str(arguments.file), *flags], left) as state:
        if state is None:
            print("the service did not start", file=sys.stderr)
            return 1
        asked, timeline = asyncio.run(ask_by_grpc(state.grpc_address, questions))
        if state.http_address is not None:
            asked += ask_by_openai(state.http_address, questions)
        if timeline is not None:
            width = max(100, shutil.get_terminal_size((110, 24)).columns)
            print(f"\nWhere the time of the {len(questions[0].images)}-picture request went:\n")
            print(render_text(timeline, width))
    return conclude(asked, left)


def load_questions(path: Path) -> list[Question]:
    """The questions; the one with the most pictures and the longest answer comes first.

    It is the one whose timeline is shown, so nothing that it needs may be in a cache yet.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    questions = [
        Question(
            images=tuple(path.parent / image for image in entry["images"]),
            text=entry["question"],
            answer=entry["answer"],
        )
        for entry in entries
    ]
    return sorted(questions, key=lambda one: (-len(one.images), -len(one.answer)))


@contextlib.contextmanager
def service(words: Sequence[str], left: list[int]) -> Iterator[ServiceState | None]:
    """Run `redserve up`; yields its state when ready, or None when it ended.

    Afterwards `left` holds the processes that are still there; there should be none.
    """
    command = [sys.executable, "-m", "redserve.cli.main", "up", "--quiet", *words]
    # A process group of its own: Ctrl-C is for us, and we then ask it to stop.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0)
    pids = [process.pid]
    try:
        state = wait_ready(process)
        if state is not None:
            pids += [one.pid for one in state.processes if one.pid is not None]
            print(f"ready: gRPC {state.grpc_address}, OpenAI http://{state.http_address}/v1")
        yield state
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        left += [pid for pid in pids if is_alive(pid)]


def wait_ready(process: subprocess.Popen[bytes]) -> ServiceState | None:
    """Wait for the service of this process; None when it ended."""
    while process.poll() is None:
        for state in running_services(runtime_directory()):
            if state.pid == process.pid and state.phase == "ready":
                return state
        time.sleep(0.1)
    return None


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ask_by_grpc(
    address: str, questions: Sequence[Question]
) -> tuple[list[Asked], Timeline | None]:
    """Ask everything by gRPC, streaming; the timeline is that of the first question."""
    print("\nBy gRPC, as it comes:")
    async with RouterClient(address) as client:
        await warm_up(client, questions)
        asked = [await ask_once(client, question) for question in questions]
    return asked, asked[0].timeline


async def warm_up(client: RouterClient, questions: Sequence[Question]) -> None:
    """First requests pay for what processes do only once; use other pictures for that."""
    shown = set(questions[0].images)
    others = sorted({image for one in questions for image in one.images} - shown)
    parts: tuple[str | bytes, ...] = (*(path.read_bytes() for path in others), WARM_UP)
    async for _ in client.generate([ChatMessage("user", parts)], choices=Choices(0.0, MAX_TOKENS)):
        pass


async def ask_once(client: RouterClient, question: Question) -> Asked:
    """Ask by gRPC and print the text as it comes."""
    parts: tuple[str | bytes, ...] = (*(p.read_bytes() for p in question.images), question.text)
    print(f"  [{len(question.images)} picture(s)] {question.text} ", end="", flush=True)
    began_s, first_s, text, timeline = time.perf_counter(), None, "", None
    async for event in client.generate(
        [ChatMessage("user", parts)], choices=Choices(0.0, MAX_TOKENS), include_timeline=True
    ):
        if isinstance(event, AnswerText):
            first_s = first_s or time.perf_counter()
            text += event.text
            print(event.text, end="", flush=True)
        elif isinstance(event, AnswerFinished):
            timeline = event.timeline
    print()
    ttft_s = (first_s or time.perf_counter()) - began_s
    return Asked(question, "gRPC", text, ttft_s, timeline)


def ask_by_openai(address: str, questions: Sequence[Question]) -> list[Asked]:
    """Ask everything once more with OpenAI's own client, streaming."""
    print("\nBy the OpenAI client:")
    asked = []
    with OpenAI(base_url=f"http://{address}/v1", api_key="unused", max_retries=0) as client:
        model = client.models.list().data[0].id
        for question in questions:
            began_s, first_s, text = time.perf_counter(), None, ""
            stream = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": list(openai_parts(question))}],
                temperature=0,
                max_tokens=MAX_TOKENS,
                stream=True,
            )
            for chunk in stream:
                piece = chunk.choices[0].delta.content if chunk.choices else None
                if piece:
                    first_s = first_s or time.perf_counter()
                    text += piece
            ttft_s = (first_s or time.perf_counter()) - began_s
            print(f"  [{len(question.images)} picture(s)] {question.text} {text}")
            asked.append(Asked(question, "OpenAI", text, ttft_s))
    return asked


def openai_parts(question: Question) -> Iterator[ChatCompletionContentPartParam]:
    """The question as OpenAI's API writes it."""
    for image in question.images:
        data = base64.b64encode(image.read_bytes()).decode()
        yield {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    yield {"type": "text", "text": question.text}


def conclude(asked: Sequence[Asked], left: Sequence[int]) -> int:
    """Print the summary; returns the exit status."""
    table = Table(title="Summary", title_justify="left")
    for column in ("way", "pictures", "question", "answer", "TTFT", "overlap"):
        table.add_column(column, justify="right" if column in ("pictures", "TTFT") else "left")
    for one in asked:
        ratio = one.timeline.overlap_ratio if one.timeline is not None else None
        verdict = "right" if one.right else f"WRONG: {one.answer.strip()!r}"
        table.add_row(
            one.way,
            str(len(one.question.images)),
            one.question.text,
            verdict,
            f"{one.ttft_s * 1e3:.0f} ms",
            "" if ratio is None else f"{ratio:.0%}",
        )
    print()
    Console(width=max(100, shutil.get_terminal_size((110, 24)).columns)).print(table)
    wrong = [one for one in asked if not one.right]
    print(f"{len(asked) - len(wrong)} of {len(asked)} answers are right")
    if left:
        print(f"processes are left: {', '.join(map(str, left))}", file=sys.stderr)
    else:
        print("all processes have ended")
    return 1 if wrong or left or not asked else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
