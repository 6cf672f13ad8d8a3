"""One image (later: video or audio clip) of a request, and where its rows go in the prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Prompt positions [start, start + length)."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """One past the last position."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class ItemMetadata:
    """What is known of an item from its pixel size alone, before it is encoded.

    Attributes:
        num_rows: Embedding rows, which is the number of placeholder positions in the prompt.
        grid: (t, h, w) in patches for families with M-RoPE, else empty.
        replacement_text: What the placeholder of the chat template is replaced by.
    """

    num_rows: int
    grid: tuple[int, ...]
    replacement_text: str


@dataclass(frozen=True, slots=True)
class Item:
    """An item with its place in the prompt.

    Attributes:
        index: Position among the items of the request, in prompt order.
        content_hash: sha256 of the raw content: cache key and prefix-cache identity.
        num_rows: Embedding rows; equals the sum of the span lengths.
        spans: Placeholder runs in prompt order. Rows fill them in order. Most families use one
            span; tiles with text between them (Idefics3, SmolVLM) and row breaks (Mistral3) make
            several.
        grid: (t, h, w) in patches for families with M-RoPE, else empty.
    """

    index: int
    content_hash: bytes
    num_rows: int
    spans: tuple[Span, ...]
    grid: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if sum(span.length for span in self.spans) != self.num_rows:
            raise ValueError(f"item {self.index}: spans do not add up to {self.num_rows} rows")

    @property
    def start(self) -> int:
        """First prompt position that one of its rows fills."""
        return self.spans[0].start

    @property
    def end(self) -> int:
        """One past the last prompt position that one of its rows fills."""
        return self.spans[-1].end
