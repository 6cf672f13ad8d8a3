"""Our router, by gRPC."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from redserve.bench.clients.base import NO_TOKEN, Stopwatch, problem_of
from redserve.bench.outcome import Problem
from redserve.domain import FinishReason
from redserve.errors import RedServeError
from redserve.slo import End, end_of
from redserve.telemetry.foreign import count, said
from redserve.wire.router_client import (
    AnswerFinished,
    AnswerText,
    ChatMessage,
    Choices,
    RouterClient,
)

if TYPE_CHECKING:
    from redserve.bench.clients.base import Manners
    from redserve.bench.outcome import Answer
    from redserve.bench.questions import Question


class GrpcClient:
    """Asks a router.

    Args:
        address: host:port.
        manners: How to ask.
    """

    def __init__(self, address: str, manners: Manners) -> None:
        self._manners = manners
        self._router = RouterClient(address)
        self._model = manners.model

    @property
    def model(self) -> str:
        """Name of the model that answers, for people."""
        return said(self._model)

    async def __aenter__(self) -> Self:
        await self._router.__aenter__()
        try:
            if not self._model:
                self._model = (await self._router.model()).name
        except BaseException:
            await self._router.__aexit__()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._router.__aexit__()

    async def ask(self, question: Question) -> Answer:
        """See `Client`."""
        choices = Choices(
            temperature=self._manners.temperature,
            max_tokens=question.max_tokens,
            ignore_eos=self._manners.ignore_eos,
        )
        message = ChatMessage("user", (*question.pictures, question.text))
        watch = Stopwatch()
        events = self._router.generate(
            [message],
            choices=choices,
            model=self._manners.model,
            timeout_s=self._manners.timeout_s,
        )
        finished: AnswerFinished | None = None
        try:
            async with aclosing(events) as answer:
                async for event in answer:
                    if isinstance(event, AnswerText) and event.num_tokens:
                        watch.note(event.num_tokens, length=len(event.text))
                    elif isinstance(event, AnswerFinished):
                        finished = event
        except RedServeError as error:
            end = end_of(error.grpc_code, own_deadline=True)
            return watch.stop(problem_of(end, error.reason, str(error)))
        if finished is None or finished.reason in (FinishReason.CANCELLED, FinishReason.ERROR):
            return watch.stop(Problem(End.FAILED, "TRUNCATED", "the answer broke off"))
        if not watch.has_begun:
            return watch.stop(NO_TOKEN, num_tokens=0)
        return watch.stop(num_tokens=count(finished.usage.num_output_tokens) or None)
