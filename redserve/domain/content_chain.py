"""Identity of a prompt prefix: digests chained over its tokens and its media.

Equal digests mean equal KV content, across requests and (with an equal seed) across processes.
Digests are 256 bits of BLAKE2b, so that nobody can craft two prefixes that share a digest and
read another client's cache.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.domain.item import Item
    from redserve.domain.layout import MediaLayout, Segment

DIGEST_BYTES = 32


class ContentChain:
    """Digests of the growing prefixes of one sequence, one per `stride` tokens, made lazily.

    Digest n covers positions [0, (n + 1) * stride). A media position counts by the content, size
    and grid of its item and by its row; its placeholder token does not matter.

    Args:
        token_ids: Not copied: tokens appended later are seen, known ones must not change.
        layout: Where the items lie in `token_ids`.
        stride: Tokens per digest; the block size for a prefix cache.
        seed: Whatever else the KV content depends on, such as the identity of the weights.
    """

    __slots__ = ("_digests", "_identities", "_layout", "_seed", "_stride", "_token_ids")

    def __init__(
        self, token_ids: Sequence[int], layout: MediaLayout, stride: int, seed: bytes = b""
    ) -> None:
        self._token_ids = token_ids
        self._layout = layout
        self._stride = stride
        self._seed = blake2b(seed, digest_size=DIGEST_BYTES).digest()
        self._digests: list[bytes] = []
        self._identities: dict[int, bytes] = {}

    def digest(self, index: int) -> bytes:
        """Digest of the first `index + 1` strides; all their tokens must be known."""
        while len(self._digests) <= index:
            self._extend()
        return self._digests[index]

    def _extend(self) -> None:
        start = len(self._digests) * self._stride
        end = start + self._stride
        if end > len(self._token_ids):
            raise ValueError(f"positions [{start}, {end}) are not known yet")
        # Every part starts with its kind and length, so that no two contents give equal bytes.
        digest = blake2b(self._digests[-1] if self._digests else self._seed, digest_size=32)
        position = start
        for segment in self._layout.overlapping(start, end):
            if segment.start > position:
                digest.update(self._text(position, segment.start))
            position = max(position, segment.start)
            stop = min(segment.end, end)
            digest.update(self._media(segment, position, stop))
            position = stop
        if position < end:
            digest.update(self._text(position, end))
        self._digests.append(digest.digest())

    def _text(self, start: int, end: int) -> bytes:
        tokens = array("q", self._token_ids[start:end]).tobytes()
        return b"T" + (end - start).to_bytes(8, "little") + tokens

    def _media(self, segment: Segment, start: int, end: int) -> bytes:
        identity = self._identities.get(segment.item_index)
        if identity is None:
            identity = _item_identity(self._layout.items[segment.item_index])
            self._identities[segment.item_index] = identity
        # The length of the span counts: where attention is bidirectional inside it, a row's
        # KV depends on every row of the span.
        numbers = (segment.rows_below(start), end - start, segment.end - segment.start)
        return b"M" + identity + array("q", numbers).tobytes()


def _item_identity(item: Item) -> bytes:
    """Fixed-length identity: the same picture at another size has other rows and positions."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    digest.update(array("q", (item.num_rows, len(item.grid), *item.grid)).tobytes())
    digest.update(item.content_hash)
    return digest.digest()
