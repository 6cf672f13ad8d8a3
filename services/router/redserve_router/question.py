"""What a client asks, in one form for gRPC and HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redserve.telemetry.tracing import NOWHERE, TraceContext

if TYPE_CHECKING:
    from redserve.v1 import types_pb2

ROLES = ("system", "user", "assistant", "tool")
"""Roles that chat templates know."""

MAX_REQUEST_ID_LENGTH = 128


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class PictureBytes:
    """A picture that came with the request."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PictureUrl:
    """A picture by address: http(s), or a `data:` URL that carries it."""

    url: str


Part = TextPart | PictureBytes | PictureUrl


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation; parts in reading order."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One request.

    Attributes:
        request_id: The client's id, or one that the router made; shown to the client and in logs.
        sequence_id: Unique for ever, even if a client uses its id twice; what encoders and LLM
            replicas know the request by.
        model: Served name, or empty for the only one.
        messages: Oldest first.
        sampling: As it came; validated and completed by `redserve.wire.types`.
        include_timeline: Whether the last event carries the timeline.
        received_ns: When it came in, nanoseconds since the Unix epoch.
        watched: Whether events tell what was done as soon as it is done.
        context: Where the request stands in the client's own trace.
    """

    request_id: str
    sequence_id: str
    model: str
    messages: tuple[Message, ...]
    sampling: types_pb2.SamplingParams
    include_timeline: bool
    received_ns: int
    watched: bool = False
    context: TraceContext = NOWHERE


@dataclass(frozen=True, slots=True)
class PicturePlace:
    """A picture of a question and where it stands, for error messages."""

    source: PictureBytes | PictureUrl
    field: str = field(default="messages")


def part_field(message_index: int, part_index: int) -> str:
    """Path of a part in a request, as error messages name it."""
    return f"messages[{message_index}].parts[{part_index}]"


def pictures_of(messages: tuple[Message, ...]) -> tuple[PicturePlace, ...]:
    """All pictures in prompt order."""
    return tuple(
        PicturePlace(part, part_field(message_index, part_index))
        for message_index, message in enumerate(messages)
        for part_index, part in enumerate(message.parts)
        if isinstance(part, PictureBytes | PictureUrl)
    )
