"""What all requests share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.telemetry.metrics.router import RouterMetrics
    from redserve.telemetry.tracing import Tracing
    from redserve_router.ledger import Ledger
    from redserve_router.limits import Limits
    from redserve_router.media.collect import PictureCollector
    from redserve_router.metadata import MetadataBook
    from redserve_router.prompt import PromptBuilder
    from redserve_router.replicas.pools import ReplicaPools
    from redserve_router.timelines import TimelineStore


@dataclass(frozen=True, slots=True)
class RouterServices:
    """Made once, used by every request.

    Attributes:
        name: Of this router; the lane of its bars.
        model_name: Served name of the model.
        pools: Both pools.
        collector: Pictures under the policy.
        metadata: Rows by picture size.
        prompts: Chat template and tokenizer.
        metrics: Counts of this router.
        timelines: The last finished ones.
        limits: Patience and room.
        ledger: What was promised and what came of it.
        tracing: Makes spans.
    """

    name: str
    model_name: str
    pools: ReplicaPools
    collector: PictureCollector
    metadata: MetadataBook
    prompts: PromptBuilder
    metrics: RouterMetrics
    timelines: TimelineStore
    limits: Limits
    ledger: Ledger
    tracing: Tracing
