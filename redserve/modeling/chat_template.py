"""A checkpoint's chat template: where it lies, and how turns must be written for it. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from redserve.errors import InvalidArgument, UnsupportedModel

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]
"""`role` and `content`: a string, or parts {"type": "text", "text": ...} and {"type": "image"}."""

_REJECTIONS = (
    *(TemplateError, TypeError, ValueError),
    *(LookupError, AttributeError, ArithmeticError),
)

_TEXT: Message = {"role": "user", "content": "What is it?"}
_PICTURE: Message = {
    "role": "user",
    "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}],
}
_SYSTEM: Message = {"role": "system", "content": "Be brief."}


class ChatTemplate:
    """A Jinja template of a checkpoint, applied in the sandbox of transformers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self._text_as_parts = self._accepts_parts()

    def apply(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> str:
        """The text of a conversation.

        Raises:
            InvalidArgument: The template rejects it, with the template's own words.
        """
        turns = [_turn(message, self._text_as_parts) for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                turns,
                chat_template=self._source,
                tools=list(tools) if tools is not None else None,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **variables,
            )
        except _REJECTIONS as error:
            raise InvalidArgument(
                f"the chat template rejects the conversation: {error}", field="messages"
            ) from error
        return str(text)

    def check(self, placeholder: str) -> str | None:
        """Try a turn of text, and one with a picture, each also after a system turn.

        Args:
            placeholder: What must appear once for the picture.

        Returns:
            None, or a remark: the template rejects the trial in its own words, as templates with
            narrow tastes may, so that nothing can be said of it.

        Raises:
            UnsupportedModel: It cannot be rendered, or does not put the placeholder down.
        """
        remark = None
        for turn, num_images in ((_TEXT, 0), (_PICTURE, 1)):
            text, rejection = self._try(turn)
            if text is None:
                remark = f"the chat template rejects a trial conversation: {rejection}"
            elif text.count(placeholder) != num_images:
                raise UnsupportedModel(
                    f"the chat template does not place images: it made {text.count(placeholder)} "
                    f"placeholders {placeholder} of {num_images} images; "
                    "mend chat_template.jinja or take it from the original checkpoint"
                )
        return remark

    def _try(self, turn: Message) -> tuple[str | None, str]:
        """The text, or None and the template's own words; raises if it is broken."""
        failure: Exception | None = None
        rejection = ""
        for messages in ([turn], [_SYSTEM, turn]):
            try:
                return self.apply(
                    messages, add_generation_prompt=True, tools=None, variables={}
                ), ""
            except InvalidArgument as error:
                cause = error.__cause__
                # Its raise_exception() raises this very class, jinja2 itself only subclasses.
                if type(cause) is TemplateError:
                    rejection = str(cause)
                elif isinstance(cause, Exception):
                    failure = cause
        if rejection:
            return None, rejection
        line = getattr(failure, "lineno", None)
        where = f" (line {line})" if line else ""
        raise UnsupportedModel(
            f"chat_template.jinja cannot be rendered: {failure}{where}; "
            "mend it or take it from the original checkpoint"
        ) from failure

    def _accepts_parts(self) -> bool:
        """Whether text given as parts is rendered; else text-only turns become strings.

        Some templates write `message['content']` down as it is: a list of parts would then appear
        in the prompt as Python source.
        """
        words = ("zq1a", "zq2b")
        probe = [
            {"role": "user", "content": [{"type": "text", "text": words[0]}]},
            {"role": "assistant", "content": [{"type": "text", "text": words[1]}]},
        ]
        try:
            text = str(
                self._tokenizer.apply_chat_template(
                    probe, chat_template=self._source, tokenize=False
                )
            )
        except _REJECTIONS:
            return False
        return all(word in text for word in words) and re.search(r"'type'|\"type\"", text) is None


def find_chat_template(path: Path, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The default chat template, looked for where transformers' processors look for it.

    Order: processor_config.json, chat_template.json (old), chat_template.jinja, the tokenizer's.

    Raises:
        UnsupportedModel: There are several templates and none is named default, or a file that
            may hold one cannot be read.
    """
    try:
        return _find(path, tokenizer)
    except (ValueError, AttributeError) as error:
        raise UnsupportedModel(
            f"{path}: processor_config.json, chat_template.json or chat_template.jinja is damaged: "
            f"copy them again ({error})"
        ) from error


def _find(path: Path, tokenizer: PreTrainedTokenizerBase) -> str | None:
    for name in ("processor_config.json", "chat_template.json"):
        file = path / name
        if file.is_file():
            template = json.loads(file.read_text(encoding="utf-8")).get("chat_template")
            if template is not None:
                return _default_template(template)
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return _default_template(tokenizer.chat_template)


def _default_template(template: object) -> str | None:
    if template is None or isinstance(template, str):
        return template
    if isinstance(template, list):  # the oldest form: [{"name": ..., "template": ...}]
        template = {entry["name"]: entry["template"] for entry in template}
    if isinstance(template, dict) and isinstance(template.get("default"), str):
        return str(template["default"])
    raise UnsupportedModel("the checkpoint has several chat templates and none is named default")


def _turn(message: Message, text_as_parts: bool) -> dict[str, Any]:
    """The message without empty fields, its content in the form that the template takes."""
    turn = {key: value for key, value in message.items() if value is not None}
    content = turn.get("content")
    if isinstance(content, str):
        if text_as_parts:
            turn["content"] = [{"type": "text", "text": content}]
    elif content is not None:
        parts = [
            {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]}
            for part in content
        ]
        if not text_as_parts and all(part["type"] == "text" for part in parts):
            turn["content"] = "".join(part["text"] for part in parts)
        else:
            turn["content"] = parts
    return turn
