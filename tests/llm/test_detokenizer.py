"""Deltas add up to what the tokenizer decodes at once, whatever the tokens are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from redserve_llm.detokenizer import Detokenizer, TextStream, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

SPECIALS = ["<unk>", "<s>", "</s>"]


def _wrap(core: Tokenizer, **more: Any) -> PreTrainedTokenizerFast:
    core.add_special_tokens(SPECIALS)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", **more
    )


def _byte_level() -> PreTrainedTokenizerFast:
    """Bytes, some pairs of bytes (which may split characters), and an added token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [a + b for a in "âĤðŁ" for b in "ĤŁ¬ĺa"]
    words = SPECIALS + alphabet + pairs
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    core.decoder = decoders.ByteLevel()
    core.add_tokens(["<tool>", "né"])
    return _wrap(core)


def _sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama's: spaces are marked, bytes are spelled out, the first space is stripped."""
    words = SPECIALS + [f"<0x{byte:02X}>" for byte in range(256)]
    words += ["▁", "▁the", "▁a", "cat", "é", ".", "▁.", "▁▁", "日本"]
    core = Tokenizer(
        models.BPE(
            vocab={word: i for i, word in enumerate(words)},
            merges=[],
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _wrap(core)


def _metaspace() -> PreTrainedTokenizerFast:
    words = [*SPECIALS, "▁", "▁the", "▁a", "cat", "é", ".", "▁.", "▁▁"]
    core = Tokenizer(models.Unigram([(word, -1.0) for word in words], 0, byte_fallback=False))
    core.decoder = decoders.Metaspace()
    return _wrap(core)


def _word_piece(*, cleans_up: bool) -> PreTrainedTokenizerFast:
    words = [*SPECIALS, "it", "##s", "do", "n", "##n", "'", "s", "t", "m", ".", ",", "?", "re"]
    core = Tokenizer(
        models.WordPiece(vocab={word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    core.decoder = decoders.WordPiece(cleanup=cleans_up)
    return _wrap(core, clean_up_tokenization_spaces=cleans_up)


def _words() -> PreTrainedTokenizerFast:
    """No decoder at all: tokens are joined by spaces, then cleaned up."""
    words = [*SPECIALS, "it", "do", "n't", "'s", "'", "n", "s", "'m", ".", "!", "ve", "'ve"]
    core = Tokenizer(
        models.WordLevel(vocab={word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    return _wrap(core, clean_up_tokenization_spaces=True)


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte level": _byte_level,
    "sentencepiece": _sentencepiece,
    "metaspace": _metaspace,
    "word piece": lambda: _word_piece(cleans_up=False),
    "word piece cleaned": lambda: _word_piece(cleans_up=True),
    "words cleaned": _words,
}


@lru_cache
def _load(name: str) -> tuple[Any, Vocabulary]:
    tokenizer = TOKENIZERS[name]()
    return tokenizer, Vocabulary(tokenizer)


def _ids(tokenizer: Any) -> st.SearchStrategy[list[int]]:
    return st.integers(0, 80).flatmap(
        lambda size: st.lists(st.integers(0, len(tokenizer) - 1), min_size=size, max_size=size)
    )


def _run(vocabulary: Vocabulary, ids: list[int], stops: tuple[str, ...] = ()) -> str:
    detokenizer = Detokenizer(vocabulary, stops)
    text = ""
    for token_id in ids:
        text += detokenizer.push(token_id)
        if detokenizer.stopped:
            return text
    return text + detokenizer.flush()


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_deltas_add_up_to_the_whole_text(name: str, data: st.DataObject) -> None:
    tokenizer, vocabulary = _load(name)
    ids = data.draw(_ids(tokenizer))
    assert _run(vocabulary, ids) == tokenizer.decode(ids, skip_special_tokens=True)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80))
def test_real_text_survives_byte_by_byte(text: str) -> None:
    tokenizer, vocabulary = _load("byte level")
    letters = dict(zip(range(256), sorted_alphabet(), strict=True))
    ids = [tokenizer.convert_tokens_to_ids(letters[byte]) for byte in text.encode()]
    assert _run(vocabulary, ids) == text


def sorted_alphabet() -> list[str]:
    """The letter of every byte, in the order of the bytes (the GPT-2 table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in table)
    table.update({byte: chr(256 + n) for n, byte in enumerate(others)})
    return [table[byte] for byte in range(256)]


@pytest.mark.parametrize("name", ["byte level", "sentencepiece", "words cleaned"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_stop_text_cuts_the_output(name: str, data: st.DataObject) -> None:
    tokenizer, vocabulary = _load(name)
    ids = data.draw(_ids(tokenizer))
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    start = data.draw(st.integers(0, max(0, len(whole) - 1)))
    stop = whole[start : start + data.draw(st.integers(1, 5))] or "zzz"
    place = whole.find(stop)
    want = whole if place < 0 else whole[:place]
    assert _run(vocabulary, ids, (stop,)) == want


def test_no_delta_ever_holds_half_a_character() -> None:
    tokenizer, vocabulary = _load("byte level")
    letters = sorted_alphabet()
    ids = [tokenizer.convert_tokens_to_ids(letters[byte]) for byte in "aé€😀b".encode()]
    stream = TextStream(vocabulary)
    assert [stream.push(token_id) for token_id in ids] == [
        *("a", "", "é", "", "", "€", "", "", "", "😀", "b")
    ]


def test_what_may_begin_a_stop_text_is_held_back_only_as_long() -> None:
    tokenizer, vocabulary = _load("byte level")
    detokenizer = Detokenizer(vocabulary, ("STOP", "TO-DO"))
    deltas = [detokenizer.push(tokenizer.convert_tokens_to_ids(c)) for c in "aSTO-x"]
    assert deltas == ["a", "", "", "", "S", "TO-x"]
    assert not detokenizer.stopped


def test_special_tokens_are_silent() -> None:
    tokenizer, vocabulary = _load("sentencepiece")
    ids = tokenizer.convert_tokens_to_ids(["▁the", "</s>", "cat", "<s>", "<unk>"])
    assert _run(vocabulary, ids) == "thecat"


def test_the_window_stays_small() -> None:
    """Cost per token must not grow with the output."""
    tokenizer, vocabulary = _load("byte level")
    stream = TextStream(vocabulary)
    for _ in range(1000):
        stream.push(tokenizer.convert_tokens_to_ids("a"))
    assert len(stream._window) <= 17
