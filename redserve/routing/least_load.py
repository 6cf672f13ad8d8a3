"""Which LLM replica gets a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from redserve.routing.snapshots import LlmSnapshot, RequestFacts

from redserve.routing.snapshots import PREFIX_STRIDE


def choose_llm(
    request: RequestFacts,
    replicas: Iterable[LlmSnapshot],
    exclude: Collection[str] = (),
) -> str | None:
    """The replica that is expected to begin the answer first.

    Counted in prompt tokens to compute before the first output: those queued there, plus those of
    this request that the replica's prefix cache probably lacks. A replica whose free blocks cannot
    hold the prompt is taken only if no other can: there the request waits for blocks, and how
    long is not known. Then fewer running sequences win (they share every step), then the address.

    Args:
        request: What is to be placed.
        replicas: All known.
        exclude: Addresses that must not be chosen, such as the one that has just failed.

    Returns:
        None if no replica serves. A request that exceeds every KV cache goes to one all the same:
        the replica's refusal says exactly what is wrong.
    """
    candidates = [r for r in replicas if r.serving and r.address not in exclude]
    best = min(candidates, key=lambda replica: _rank(request, replica), default=None)
    return None if best is None else best.address


def _rank(request: RequestFacts, replica: LlmSnapshot) -> tuple[int, int, int, str]:
    missing = request.num_prompt_tokens - num_cached_tokens(request, replica)
    work = replica.schedulable_tokens + replica.waiting_tokens + missing
    return _memory_rank(request, replica, missing), work, replica.num_running, replica.address


def _memory_rank(request: RequestFacts, replica: LlmSnapshot, missing: int) -> int:
    """0: the prompt fits now; 1: it has to wait for blocks; 2: it never fits."""
    size = replica.block_size
    # The last output is never computed, so it needs no slot.
    if -(-(request.num_prompt_tokens + request.max_tokens - 1) // size) > replica.blocks_total:
        return 2
    # Queued prompts take blocks first.
    return int(-(-(missing + replica.waiting_tokens) // size) > replica.blocks_free)


def num_cached_tokens(request: RequestFacts, replica: LlmSnapshot) -> int:
    """Prompt tokens that the replica's prefix cache probably holds."""
    num_known = 0
    for digest in request.prefixes:
        if digest not in replica.recent_prefixes:
            break
        num_known += 1
    return num_known * PREFIX_STRIDE
