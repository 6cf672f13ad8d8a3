"""What the engine counts, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.scheduling import MicroBatch, SchedulerStats
    from redserve.telemetry.metrics.llm import LLMMetrics
    from redserve_llm.sequence_timeline import SequenceTimeline

LOAD_INTERVAL_NS = 20_000_000
"""A busy engine reports its load at most so often: adding it up takes time."""
_MIN_RETRY_S = 0.5
_SMOOTHING = 0.2


class StepMetrics:
    """Turns steps, ends and stats into metrics. The engine's lock guards all but `step`.

    Args:
        metrics: Of the process.
    """

    def __init__(self, metrics: LLMMetrics) -> None:
        self._metrics = metrics
        self._reported_ns = 0
        self._queue_wait_s = 0.0
        self._totals = (0, 0, 0, 0)

    def step(self, batch: MicroBatch, num_sampled: int, seconds: float) -> None:
        """A step ran."""
        self._metrics.step.observe(seconds)
        self._metrics.batch_tokens.observe(batch.num_tokens)
        self._metrics.batch_sequences.observe(len(batch.chunks))
        if num_sampled:
            self._metrics.generated_tokens.inc(num_sampled)

    def ended(self, timeline: SequenceTimeline) -> None:
        """A sequence came to its end."""
        first, prefilled, last = (
            timeline.first_chunk_ns,
            timeline.prefilled_ns,
            timeline.last_token_ns,
        )
        if first is None or prefilled is None or last is None:
            return
        queue_wait_s = (first - timeline.arrived_ns) / 1e9
        self._queue_wait_s += _SMOOTHING * (queue_wait_s - self._queue_wait_s)
        self._metrics.queue_wait.observe(queue_wait_s)
        self._metrics.prefill.observe((prefilled - first) / 1e9)
        self._metrics.decode.observe((last - prefilled) / 1e9)

    def retry_after_s(self) -> float:
        """When a refused client should come back: about when the queue has moved once."""
        return max(_MIN_RETRY_S, self._queue_wait_s)

    def is_due(self, at_ns: int) -> bool:
        """Whether the load is to be reported again."""
        return at_ns - self._reported_ns >= LOAD_INTERVAL_NS

    def load(self, stats: SchedulerStats, at_ns: int) -> None:
        """Set the gauges; counters grow by what was added since the last call."""
        self._reported_ns = at_ns
        metrics = self._metrics
        metrics.ready_tokens.set(stats.ready_tokens)
        metrics.schedulable_tokens.set(stats.schedulable_tokens)
        metrics.sequences.labels(phase="waiting").set(stats.num_waiting)
        metrics.sequences.labels(phase="running").set(stats.num_running)
        metrics.sequences.labels(phase="preempted").set(stats.num_preempted)
        used = stats.blocks_total - stats.blocks_free
        metrics.kv_blocks.labels(state="used").set(used)
        metrics.kv_blocks.labels(state="cached").set(stats.blocks_cached)
        metrics.kv_blocks.labels(state="free").set(stats.blocks_free - stats.blocks_cached)
        metrics.kv_cache_utilization.set(used / stats.blocks_total)
        totals = (
            stats.preemptions_total,
            stats.starved_batches_total,
            stats.prefix_query_tokens_total,
            stats.prefix_hit_tokens_total,
        )
        counters = (
            metrics.preemptions,
            metrics.starved_steps,
            metrics.prefix_cache_query_tokens,
            metrics.prefix_cache_hit_tokens,
        )
        for counter, now, before in zip(counters, totals, self._totals, strict=True):
            counter.inc(now - before)
        self._totals = totals
