"""Limits and switches of a scheduler, and the figures that it reports."""

from __future__ import annotations

from dataclasses import dataclass

from redserve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Limits and switches of a scheduler.

    Attributes:
        num_blocks: Blocks in the KV cache.
        block_size: Tokens per block.
        max_sequences: Most sequences that hold blocks at a time.
        max_in_flight: Most micro-batches scheduled and not updated (P, the pipeline stages).
        min_chunk: Fewest tokens for which a prompt that is still being encoded gets a step.
        max_held_back: Steps in a row that a sequence with schedulable tokens may be passed over
            because of `min_chunk` or `atomic_items`; after that it goes first. Keeps a stream of
            younger requests from overtaking it for ever.
        atomic_items: No chunk ends or starts inside a span (families with bidirectional attention
            inside an image, such as Gemma 3).
        max_model_length: Most tokens of prompt and output together; None: what the cache holds.
        prefix_cache: Whether KV of equal prefixes is shared.
        prefix_seed: Whatever else KV content depends on, such as the identity of the weights.
        reserve_ratio: Share of the outputs still allowed that admission leaves blocks for, at
            first; adapts. 0 admits as long as the first chunk fits.
        reserve_prompts: Whether admission leaves blocks for the rest of running prompts.
    """

    num_blocks: int
    block_size: int
    max_sequences: int = 256
    max_in_flight: int = 1
    min_chunk: int = 1
    max_held_back: int = 32
    atomic_items: bool = False
    max_model_length: int | None = None
    prefix_cache: bool = True
    prefix_seed: bytes = b""
    reserve_ratio: float = 0.3
    reserve_prompts: bool = True

    def __post_init__(self) -> None:
        for name in ("num_blocks", "block_size", "max_sequences", "max_in_flight", "min_chunk"):
            if getattr(self, name) < 1:
                raise ConfigError(f"must be at least 1, is {getattr(self, name)}", field=name)
        if self.max_held_back < 0:
            raise ConfigError("must not be negative", field="max_held_back")
        if not 0.0 <= self.reserve_ratio <= 1.0:
            raise ConfigError("must lie between 0 and 1", field="reserve_ratio")


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of a request that was added.

    Attributes:
        num_cached_tokens: Tokens at the start of the prompt that the prefix cache has now.
        needed_items: Items whose rows must be delivered; the others are covered by the cache.
    """

    num_cached_tokens: int
    needed_items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """Figures of one moment; totals count from the start.

    Attributes:
        num_waiting: Sequences never admitted yet.
        num_running: Sequences that hold blocks.
        num_preempted: Sequences that lost their blocks and wait for new ones.
        num_decoding: Running sequences past their prompt.
        num_in_flight: Micro-batches scheduled and not updated.
        schedulable_tokens: Tokens that could run now.
        ready_tokens: Schedulable tokens and those in flight.
        waiting_tokens: Tokens of waiting and preempted sequences, encoded or not.
        blocks_free: Blocks that could be handed out, those that only the cache keeps included.
        blocks_cached: Blocks that only the cache keeps.
        blocks_total: Blocks in the KV cache.
        rows_held: Embedding rows that are here and not used.
        prefix_hit_tokens_total: Prompt tokens found in the prefix cache at first admission.
        prefix_query_tokens_total: Prompt tokens looked up at first admission.
        preemptions_total: Preemptions.
        starved_batches_total: Micro-batches that left a sequence out for want of KV blocks.
        recomputed_tokens_total: Computed tokens that preemptions threw away.
        oldest_waiting_arrival: Arrival number of the oldest waiting or preempted sequence.
    """

    num_waiting: int
    num_running: int
    num_preempted: int
    num_decoding: int
    num_in_flight: int
    schedulable_tokens: int
    ready_tokens: int
    waiting_tokens: int
    blocks_free: int
    blocks_cached: int
    blocks_total: int
    rows_held: int
    prefix_hit_tokens_total: int
    prefix_query_tokens_total: int
    preemptions_total: int
    starved_batches_total: int
    recomputed_tokens_total: int
    oldest_waiting_arrival: int | None
