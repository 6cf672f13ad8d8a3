"""From the body of POST /v1/chat/completions to a question."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json

from redserve.errors import InvalidArgument
from redserve.telemetry.clock import now_ns
from redserve.telemetry.tracing import NOWHERE, TraceContext
from redserve.v1 import types_pb2
from redserve_router.http.schemas import ChatCompletionBody, RedServeOptions
from redserve_router.http.unsupported import without_unsupported
from redserve_router.question import Message, PictureUrl, Question, TextPart
from redserve_router.servicer import make_ids

if TYPE_CHECKING:
    from redserve_router.http.schemas import MessageBody
    from redserve_router.question import Part

_UINT64 = 2**64 - 1
_PART = re.compile(r"^messages\[(\d+)\]\.parts(?:\[\d+\])?")
_ROLES = {"developer": "system"}
"""OpenAI's newer name of the same thing; chat templates know the older one."""


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A chat completion that was asked for.

    Attributes:
        stream: Whether to answer piece by piece.
        include_usage: Whether a stream ends with a chunk of token counts.
        logprobs: Whether tokens and their probabilities are shown.
        plain_messages: Indices of messages whose content was one string.
        max_tokens_name: The name under which the client wrote max_tokens.
    """

    question: Question
    stream: bool
    include_usage: bool
    logprobs: bool
    plain_messages: frozenset[int]
    max_tokens_name: str

    def param(self, field: str | None) -> str | None:
        """A field of the gRPC request as the client of this API wrote it."""
        if field is None:
            return None
        found = _PART.match(field)
        if found and int(found[1]) in self.plain_messages:
            return f"messages[{found[1]}].content"
        names = {
            "sampling.max_tokens": self.max_tokens_name,
            "sampling.num_logprobs": "top_logprobs",
        }
        name = names.get(field, field.removeprefix("sampling."))
        return name.replace(".parts", ".content")


def parse_chat(body: bytes, request_id: str, context: TraceContext = NOWHERE) -> ChatCall:
    """Read a body.

    Args:
        body: What came.
        request_id: The client's id, or one that was made.
        context: Where the request stands in the client's own trace.

    Raises:
        InvalidArgument: It is no JSON object, or a field is wrong; `field` is the HTTP one.
    """
    try:
        value = from_json(body)
    except ValueError as error:
        raise InvalidArgument(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgument("the body must be a JSON object")
    try:
        chat = ChatCompletionBody.model_validate(without_unsupported(value))
    except ValidationError as error:
        raise _invalid(error) from error
    if chat.stream_options is not None and not chat.stream:
        raise InvalidArgument("only allowed with stream: true", field="stream_options")
    ours = chat.redserve or RedServeOptions()
    if ours.progress and not chat.stream:
        raise InvalidArgument("only allowed with stream: true", field="redserve.progress")
    _, sequence_id = make_ids(request_id)
    question = Question(
        request_id=request_id,
        sequence_id=sequence_id,
        model=chat.model or "",
        messages=tuple(_message(index, body) for index, body in enumerate(chat.messages)),
        sampling=_sampling(chat),
        include_timeline=ours.timeline,
        received_ns=now_ns(),
        watched=ours.progress,
        context=context,
    )
    return ChatCall(
        question=question,
        stream=bool(chat.stream),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        logprobs=bool(chat.logprobs),
        plain_messages=frozenset(
            index for index, body in enumerate(chat.messages) if not isinstance(body.content, list)
        ),
        max_tokens_name=(
            "max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens"
        ),
    )


def _sampling(chat: ChatCompletionBody) -> types_pb2.SamplingParams:
    """As it came; ranges are checked where gRPC's are."""
    if chat.top_logprobs is not None and not chat.logprobs:
        raise InvalidArgument("only allowed with logprobs: true", field="top_logprobs")
    both = (chat.max_tokens, chat.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise InvalidArgument(
            "differs from max_completion_tokens: send one of them", field="max_tokens"
        )
    stop = [chat.stop] if isinstance(chat.stop, str) else chat.stop
    return types_pb2.SamplingParams(
        temperature=chat.temperature,
        top_p=chat.top_p,
        top_k=None if chat.top_k is None else max(0, chat.top_k),  # -1: off, as elsewhere
        seed=None if chat.seed is None else chat.seed & _UINT64,
        stop=stop,
        stop_token_ids=chat.stop_token_ids,
        max_tokens=next((value for value in reversed(both) if value is not None), None),
        presence_penalty=chat.presence_penalty,
        frequency_penalty=chat.frequency_penalty,
        repetition_penalty=chat.repetition_penalty,
        ignore_eos=bool(chat.ignore_eos),
        num_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
    )


def _message(index: int, body: MessageBody) -> Message:
    field = f"messages[{index}]"
    for name in ("tool_calls", "function_call", "audio"):
        if getattr(body, name):
            raise InvalidArgument(f"{name} is not supported here", field=f"{field}.{name}")
    return Message(_ROLES.get(body.role, body.role), _parts(body.content, f"{field}.content"))


def _parts(content: Any, field: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):
        raise InvalidArgument("must be a string or a list of parts", field=field)
    return tuple(_part(part, f"{field}[{index}]") for index, part in enumerate(content))


def _part(part: Any, field: str) -> Part:
    if not isinstance(part, dict):
        raise InvalidArgument("a part is an object with a type", field=field)
    match part.get("type"):
        case "text":
            text = part.get("text")
            if not isinstance(text, str):
                raise InvalidArgument("must be a string", field=f"{field}.text")
            return TextPart(text)
        case "image_url":
            return PictureUrl(_image_url(part.get("image_url"), f"{field}.image_url"))
        case other:
            raise InvalidArgument(
                f"part type {other!r} is not supported: send text or image_url",
                field=f"{field}.type",
            )


def _image_url(value: Any, field: str) -> str:
    if isinstance(value, str):  # not OpenAI's shape, but a common and clear one
        return value
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        raise InvalidArgument('must look like {"url": "data:image/png;base64,..."}', field=field)
    url: str = value["url"]
    return url


def _invalid(error: ValidationError) -> InvalidArgument:
    """The first complaint, with a path as in JSON; branches of unions are no part of it."""
    errors = error.errors(include_url=False)
    field = errors[0]["loc"][:1]
    # Of a union's branches, the one that got furthest is the one that was meant.
    first = max(
        (known for known in errors if known["loc"][:1] == field), key=lambda e: len(e["loc"])
    )
    path = ""
    for step in first["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step in ("str", "list[str]") or step.startswith("constrained"):
            continue
        else:
            path += f".{step}" if path else step
    message = first["msg"]
    if first["type"] == "extra_forbidden":
        message = "unknown field: check its name, or leave it out"
    elif first["type"] == "missing":
        message = "is required"
    return InvalidArgument(message, field=path)
