"""From tokens to text, token by token, without ever taking a character back.

Joined, the deltas are exactly `tokenizer.decode(all tokens, skip_special_tokens=True)`, cut at the
first stop text. A prefix of the tokens may decode to something that is no prefix of the whole
text, so text is held back until it is settled, in three stages that a token's text passes:

    TextStream    a character spread over several tokens decodes to U+FFFD until it is whole, and
                  one bad byte turns a whole run of byte-fallback tokens (<0xE2>) into U+FFFD
    CleanUp       some tokenizers remove spaces before marks and contractions ("it 's" -> "it's")
    StopTexts     the end of the text may be the beginning of a stop text
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>\Z")
_MAX_WINDOW = 16
"""Tokens that are decoded again at each step, at most, while text keeps coming out."""


class Vocabulary:
    """What the detokenizers of all sequences share: the tokenizer and facts about its tokens.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.special_ids: frozenset[int] = frozenset(tokenizer.all_special_ids).union(
            token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        )
        self.byte_ids: frozenset[int] = frozenset(
            token_id
            for token, token_id in tokenizer.get_vocab().items()
            if _BYTE_TOKEN.match(token)
        )
        self.cleans_up = _cleans_up(tokenizer)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out, spaces not cleaned up."""
        return str(
            self._tokenizer.decode(
                list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def clean_up(self, text: str) -> str:
        """Spaces removed as `decode` of the tokenizer would."""
        return str(self._tokenizer.clean_up_tokenization(text))

    def token_text(self, token_id: int) -> str:
        """Text of one token alone, special ones by name; for logprobs."""
        return str(self._tokenizer.decode([token_id], skip_special_tokens=False))


def _cleans_up(tokenizer: Any) -> bool:
    """As transformers decides it: asked for, but not for BPE, whose text it would damage."""
    if not tokenizer.clean_up_tokenization_spaces:
        return False
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "BPE":
        return True
    return bool(tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output)


class TextStream:
    """Tokens to settled text.

    Only a window of the last tokens is decoded at each step. It begins with tokens whose text is
    out already, so that what a tokenizer does at the start of a text (strip a space) cancels out:

        tokens   dropped | . . . . . . | . . . . . .
                                    settled      now      all text up to `settled` is out
    """

    __slots__ = ("_num_out", "_settled", "_vocabulary", "_window")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._window: list[int] = []
        self._settled = 0
        self._num_out = 0  # characters of the window's text that are out

    def push(self, token_id: int) -> str:
        """Add a token; the text that is settled by it."""
        if token_id in self._vocabulary.special_ids:
            return ""
        self._window.append(token_id)
        if token_id in self._vocabulary.byte_ids:
            return ""  # the run may go on, and a bad byte would change all of it
        text = self._vocabulary.decode(self._window)
        # An unfinished character shows as one U+FFFD, whatever number of bytes it has so far.
        end = len(text) - text.endswith(_REPLACEMENT)
        delta = text[self._num_out : end]
        self._num_out = max(self._num_out, end)
        if end == len(text):
            self._settle()
        return delta

    def flush(self) -> str:
        """No more tokens: the rest of the text."""
        return self._vocabulary.decode(self._window)[self._num_out :]

    def _settle(self) -> None:
        """Everything is out: shorten the window to what follows the last settled point."""
        size = len(self._window)
        if size <= _MAX_WINDOW // 2:
            self._settled = size
        elif size > _MAX_WINDOW:
            del self._window[: self._settled]
            self._num_out = len(self._vocabulary.decode(self._window))
            self._settled = len(self._window)


class CleanUp:
    """Cleans text up as far as what follows cannot change it any more.

    Every replacement removes a space before a mark or a contraction. One can make another possible
    ("n ' t" -> "n't" -> joined to the word before), but none reaches over a space that has a word
    behind it and anything but a space or an apostrophe before it: text is cut there.
    """

    __slots__ = ("_held", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._held = ""

    def push(self, text: str) -> str:
        """Add text; what is settled by it."""
        text = self._held + text
        cut = len(text) - 2
        while cut > 0 and not _is_border(text, cut):
            cut -= 1
        cut = max(cut, 0)
        self._held = text[cut:]
        return self._vocabulary.clean_up(text[:cut])

    def flush(self) -> str:
        """No more text: the rest."""
        return self._vocabulary.clean_up(self._held)


def _is_border(text: str, place: int) -> bool:
    return text[place] == " " and text[place - 1] not in " '" and text[place + 1].isalnum()


class StopTexts:
    """Finds the first stop text, holding back what may be the beginning of one.

    Attributes:
        found: Whether a stop text was found; nothing is to be pushed then.
    """

    __slots__ = ("_held", "_stops", "found")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Add text; what is before any stop text."""
        if not self._stops:
            return text
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found = True
            self._held = ""
            return text[: min(places)]
        cut = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """No more text: the rest."""
        return self._held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


class Detokenizer:
    """The text of one sequence.

    Args:
        vocabulary: Shared.
        stops: Texts that end the output and are not part of it.
    """

    __slots__ = ("_clean_up", "_stops", "_stream")

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str] = ()) -> None:
        self._stream = TextStream(vocabulary)
        self._clean_up = CleanUp(vocabulary) if vocabulary.cleans_up else None
        self._stops = StopTexts(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found: the text is complete."""
        return self._stops.found

    def push(self, token_id: int) -> str:
        """Add a token; the text to append to what is out."""
        text = self._stream.push(token_id)
        if self._clean_up is not None:
            text = self._clean_up.push(text)
        return self._stops.push(text) if text else ""

    def flush(self) -> str:
        """No more tokens: the rest of the text. To be called once."""
        text = self._stream.flush()
        if self._clean_up is not None:
            text = self._clean_up.push(text) + self._clean_up.flush()
        text = self._stops.push(text)
        return text if self._stops.found else text + self._stops.flush()
