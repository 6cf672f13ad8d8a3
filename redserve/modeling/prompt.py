"""From chat messages to token ids and spans, exactly as the checkpoint's own processor does it.

Without torch, so that the router can do it. The order of things:

    messages --render--> text with one placeholder per image
             --expand--> each placeholder replaced by its item's replacement text
             --tokenize--> ids; the ids of the row token are the positions that rows fill
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from redserve.domain.item import Span
from redserve.errors import InvalidArgument, UnsupportedModel
from redserve.modeling.chat_template import ChatTemplate, Message, find_chat_template
from redserve.modeling.families import Family, family_of, image_token_id, read_config, typed_config
from redserve.modeling.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase


class ExpandedPrompt(NamedTuple):
    """Token ids of a prompt and, per item in prompt order, the spans that its rows fill."""

    token_ids: list[int]
    spans: list[list[Span]]


class PromptRenderer:
    """The text half of a checkpoint's processor; safe to call from several threads.

    Attributes:
        tokenizer: The checkpoint's tokenizer; also detokenizes what is generated.
        family: The checkpoint's family.
        placeholder: What the chat template emits for each image.
        image_token_ids: Ids whose positions receive embedding rows.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        family: Family,
        *,
        chat_template: str | None,
        row_token_id: int,
        video_token_id: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.family = family
        self.image_token_ids: tuple[int, ...] = (row_token_id,)
        self._row_token = _token_text(tokenizer, row_token_id)
        self.placeholder: str = family.placeholder or self._row_token
        # A user who could write one of these would shift every later image.
        reserved = {self.placeholder, self._row_token}
        if video_token_id is not None and video_token_id < len(tokenizer):
            reserved.add(_token_text(tokenizer, video_token_id))
        self._reserved = tuple(sorted(reserved))
        self._chat_template = (
            None if chat_template is None else ChatTemplate(tokenizer, chat_template)
        )
        # The Rust tokenizer refuses a second caller while one changes its padding state.
        self._tokenizer_lock = threading.Lock()

    @classmethod
    def from_checkpoint(cls, path: Path) -> PromptRenderer:
        """Load tokenizer and chat template of the checkpoint folder; no code of it is run.

        Raises:
            ModelNotFound: There is no config.json or no tokenizer.
            UnsupportedModel: The family cannot be served.
        """
        raw_config = read_config(path)
        family = family_of(raw_config)
        config = typed_config(raw_config)
        tokenizer = load_tokenizer(path)
        video_token_id = getattr(config, "video_token_id", None)
        return cls(
            tokenizer,
            family,
            chat_template=find_chat_template(path, tokenizer),
            row_token_id=image_token_id(config),
            video_token_id=video_token_id,
        )

    def check(self) -> str | None:
        """Try the chat template before anyone relies on it.

        Returns:
            None, or a remark on a template that rejects the trial in its own words.

        Raises:
            UnsupportedModel: There is no chat template, it cannot be rendered, or it does not
                place images.
        """
        return self._template().check(self.placeholder)

    def _template(self) -> ChatTemplate:
        if self._chat_template is None:
            raise UnsupportedModel(
                "the checkpoint has no chat template: add chat_template.jinja to its folder"
            )
        return self._chat_template

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text of a conversation, with one placeholder per image part.

        Args:
            messages: Turns in order; image parts need no more than their type here.
            add_generation_prompt: Whether to end with the opening of an assistant turn.
            tools: JSON schemas of tools, for templates that know them.
            template_variables: Further variables of the template, e.g. `enable_thinking`.

        Raises:
            UnsupportedModel: The checkpoint has no chat template.
            InvalidArgument: Text holds a reserved token, a part has an unknown type, or the
                template rejects the conversation or loses an image of it.
        """
        template = self._template()
        num_images = 0
        for position, message in enumerate(messages):
            num_images += self._check_message(message, f"messages[{position}]")
        text = template.apply(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            variables=template_variables or {},
        )
        num_placeholders = text.count(self.placeholder)
        if num_placeholders != num_images:
            raise InvalidArgument(
                f"the chat template made {num_placeholders} placeholders {self.placeholder} of "
                f"{num_images} images: it takes no images where they stand, or text parts add up "
                "to a placeholder",
                field="messages",
            )
        return text

    def expand_and_tokenize(
        self,
        text: str,
        placeholder: str | None = None,
        replacements: Sequence[str] = (),
        image_token_ids: Sequence[int] | None = None,
    ) -> ExpandedPrompt:
        """Replace the placeholders in order, tokenize, and find the spans of every item.

        Args:
            text: Prompt text with one placeholder per item.
            placeholder: The placeholder, by default `self.placeholder`.
            replacements: Per item what its placeholder becomes (`ItemMetadata.replacement_text`).
            image_token_ids: Ids that rows fill, by default `self.image_token_ids`.

        Returns:
            Token ids, and per item its spans in order; rows fill them from the first on.

        Raises:
            InvalidArgument: Placeholders and replacements differ in number, or the text outside
                of the replacements holds a row token.
        """
        placeholder = self.placeholder if placeholder is None else placeholder
        row_ids = frozenset(self.image_token_ids if image_token_ids is None else image_token_ids)
        row_tokens = [_token_text(self.tokenizer, token_id) for token_id in sorted(row_ids)]
        pieces = text.split(placeholder)
        if len(pieces) - 1 != len(replacements):
            raise InvalidArgument(
                f"the prompt has {len(pieces) - 1} placeholders {placeholder} "
                f"for {len(replacements)} images",
                field="prompt",
            )
        _refuse_tokens(pieces, row_tokens, "prompt")
        expanded = _interleave(pieces, replacements)
        token_ids = self._tokenize(expanded, starts_like=text)
        num_rows = [sum(text.count(token) for token in row_tokens) for text in replacements]
        positions = [at for at, token_id in enumerate(token_ids) if token_id in row_ids]
        if len(positions) != sum(num_rows):
            raise InvalidArgument(
                f"the tokenized prompt has {len(positions)} row positions for {sum(num_rows)} rows",
                field="prompt",
            )
        remaining = iter(positions)
        return ExpandedPrompt(token_ids, [_spans(remaining, count) for count in num_rows])

    def _tokenize(self, text: str, *, starts_like: str) -> list[int]:
        # As ProcessorMixin.apply_chat_template: a template that writes BOS itself gets no second.
        bos = self.tokenizer.bos_token
        has_bos = bool(bos) and starts_like.startswith(bos)
        with self._tokenizer_lock:
            # Not verbose: who asks too much is told so, and nothing of it is run.
            encoded = self.tokenizer(text, add_special_tokens=not has_bos, verbose=False)
        return [int(token_id) for token_id in encoded["input_ids"]]

    def _check_message(self, message: Message, field: str) -> int:
        """Number of image parts; raises InvalidArgument for what may not be in a message."""
        content = message.get("content")
        if content is None:
            return 0
        if isinstance(content, str):
            _refuse_tokens([content], self._reserved, f"{field}.content")
            return 0
        num_images = 0
        for position, part in enumerate(content):
            kind = part.get("type")
            if kind == "image":
                num_images += 1
            elif kind == "text":
                where = f"{field}.content[{position}].text"
                if not isinstance(part.get("text"), str):
                    raise InvalidArgument("a text part needs a string", field=where)
                _refuse_tokens([part["text"]], self._reserved, where)
            else:
                raise InvalidArgument(
                    f"part type {kind!r} is unknown: write text or image",
                    field=f"{field}.content[{position}].type",
                )
        return num_images


def _refuse_tokens(texts: Sequence[str], tokens: Sequence[str], field: str) -> None:
    for text in texts:
        for token in tokens:
            if token in text:
                raise InvalidArgument(
                    f"the text holds the reserved token {token}: remove it; "
                    "images are sent as image parts",
                    field=field,
                )


def _interleave(pieces: Sequence[str], replacements: Sequence[str]) -> str:
    out = [pieces[0]]
    for replacement, piece in zip(replacements, pieces[1:], strict=True):
        out += (replacement, piece)
    return "".join(out)


def _spans(positions: Iterator[int], num_rows: int) -> list[Span]:
    """The next `num_rows` positions as runs."""
    spans: list[Span] = []
    start = length = 0
    for _ in range(num_rows):
        position = next(positions)
        if length and position == start + length:
            length += 1
            continue
        if length:
            spans.append(Span(start, length))
        start, length = position, 1
    if length:
        spans.append(Span(start, length))
    return spans


def _token_text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    text = tokenizer.convert_ids_to_tokens(token_id)
    if not isinstance(text, str):
        raise UnsupportedModel(
            f"the tokenizer has no token with id {token_id}, which config.json names as image token"
        )
    return text
