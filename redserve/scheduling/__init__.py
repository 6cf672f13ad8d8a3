"""The pure scheduling core: which tokens run next, in which blocks, from which rows.

Standard library only, and of it neither clocks nor I/O: the engine drives it with a model, the
simulator with a cost model and virtual time, the tests with nothing at all.
"""

from redserve.scheduling.config import Admission, SchedulerConfig, SchedulerStats
from redserve.scheduling.cost_model import CostModel, StepFeatures
from redserve.scheduling.embedding_tracker import EmbeddingTracker
from redserve.scheduling.encoder_batcher import BatchLimit, EncodeJob, EncoderBatcher, EncodeTask
from redserve.scheduling.events import (
    Event,
    Finished,
    ItemsNeeded,
    Preempted,
    Resumed,
    RowsReleased,
)
from redserve.scheduling.micro_batch import MicroBatch, Outcome, RowSlice, ScheduledChunk
from redserve.scheduling.scheduler import Scheduler
from redserve.scheduling.sequence import Phase
from redserve.scheduling.token_budget import CostModelBudget, FixedBudget, TokenBudget

__all__ = [
    "Admission",
    "BatchLimit",
    "CostModel",
    "CostModelBudget",
    "EmbeddingTracker",
    "EncodeJob",
    "EncodeTask",
    "EncoderBatcher",
    "Event",
    "Finished",
    "FixedBudget",
    "ItemsNeeded",
    "MicroBatch",
    "Outcome",
    "Phase",
    "Preempted",
    "Resumed",
    "RowSlice",
    "RowsReleased",
    "ScheduledChunk",
    "Scheduler",
    "SchedulerConfig",
    "SchedulerStats",
    "StepFeatures",
    "TokenBudget",
]
