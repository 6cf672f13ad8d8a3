"""Checks that need nothing but the question itself; each names the field and the mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.domain import SamplingParams
from redserve.errors import InvalidArgument, ModelNotFound
from redserve.wire.types import sampling_from_proto
from redserve_router.question import MAX_REQUEST_ID_LENGTH, ROLES

if TYPE_CHECKING:
    from redserve_router.question import Message, Question


def check_question(question: Question, served_model: str) -> None:
    """Refuse what cannot be answered, before anything is fetched, decoded or queued.

    Raises:
        ModelNotFound: Another model is asked for than the one served.
        InvalidArgument: A field is wrong; `field` is its path in the gRPC request.
    """
    if question.model not in ("", served_model):
        raise ModelNotFound(
            f"model {question.model!r} is not served here: ask for {served_model!r}", field="model"
        )
    if not is_request_id(question.request_id):
        raise InvalidArgument(
            f"must be 1 to {MAX_REQUEST_ID_LENGTH} printable ASCII characters without spaces",
            field="request_id",
        )
    if not question.messages:
        raise InvalidArgument("send at least one message", field="messages")
    for index, message in enumerate(question.messages):
        _check_message(message, f"messages[{index}]")
    # Ranges only: the checkpoint's own defaults are filled in once a replica is known.
    sampling_from_proto(question.sampling, SamplingParams())


def is_request_id(text: str) -> bool:
    """Whether `text` may serve as the id of a request; it goes into headers and logs."""
    return (
        0 < len(text) <= MAX_REQUEST_ID_LENGTH
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )


def id_to_show(text: str) -> str:
    """The id of a request as logs and spans may have it; empty for what is none."""
    return text if is_request_id(text) else ""


def _check_message(message: Message, field: str) -> None:
    if message.role not in ROLES:
        raise InvalidArgument(
            f"role {message.role!r} is unknown: use one of {', '.join(ROLES)}",
            field=f"{field}.role",
        )
    if not message.parts:
        raise InvalidArgument(
            "the message is empty: send at least one text or image part", field=f"{field}.parts"
        )
