"""Which encoder gets which item of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from redserve.routing.snapshots import EncoderSnapshot, ItemFacts


def spread_items(
    items: Iterable[ItemFacts],
    encoders: Iterable[EncoderSnapshot],
    exclude: Collection[str] = (),
) -> dict[int, str] | None:
    """Spread the items of one request over the encoders (EPD's intra-request parallelism).

    In prompt order, each item goes to the encoder with the fewest rows queued and assigned, so
    that the first items are first on every encoder and the ready prefix grows from the left. An
    encoder that has the content wins as long as waiting there takes less than encoding again
    elsewhere. Equal content of one request goes to one encoder, which encodes it once.

    Args:
        items: In prompt order.
        encoders: All known.
        exclude: Addresses that must not be chosen.

    Returns:
        Item index -> address; None if there are items and no encoder serves.
    """
    serving = {e.address: e for e in encoders if e.serving and e.address not in exclude}
    load = {address: encoder.load_rows for address, encoder in serving.items()}
    has = {address: set(encoder.cached) for address, encoder in serving.items()}
    placed: dict[int, str] = {}
    for item in items:
        if not serving:
            return None
        address = min(load, key=lambda a: (load[a], a))
        holders = [a for a in load if item.content_hash in has[a]]
        if holders:
            holder = min(holders, key=lambda a: (load[a], a))
            if load[holder] <= load[address] + item.num_rows:
                address = holder
        if item.content_hash not in has[address]:
            load[address] += item.num_rows
            has[address].add(item.content_hash)
        placed[item.index] = address
    return placed
