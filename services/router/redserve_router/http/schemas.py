"""What a client may write in POST /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_INT64 = 2**63 - 1
Int64 = Annotated[int, Field(ge=-(2**63), le=_INT64)]
UInt32 = Annotated[int, Field(ge=0, le=2**32 - 1)]


class _Body(BaseModel):
    # Strict: a string is no number. Unknown fields are refused, since a typing error in a field's
    # name would otherwise change the answer silently.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class StreamOptions(_Body):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class RedServeOptions(_Body):
    """Our extension: `"redserve": {"timeline": true, "progress": true}`.

    Attributes:
        timeline: The answer brings its timeline.
        progress: A stream also tells what was done as soon as it is done.
    """

    timeline: bool = False
    progress: bool = False


class MessageBody(BaseModel):
    """One message. Fields of OpenAI that do not reach the prompt are allowed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    role: str
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class ChatCompletionBody(_Body):
    """Fields that are understood; `unsupported` lists those that are known and refused."""

    model: str | None = None
    messages: list[MessageBody]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**32 - 1)] | None = None
    seed: Int64 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[UInt32] | None = None
    max_tokens: Int64 | None = None
    max_completion_tokens: Int64 | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    logprobs: bool | None = None
    top_logprobs: UInt32 | None = None
    redserve: RedServeOptions | None = None
