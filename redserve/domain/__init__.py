"""Frozen values that every layer speaks in; standard library only."""

from redserve.domain.item import Item, ItemMetadata, Span
from redserve.domain.output import FinishReason, TokenLogprob, TokenOutput, Usage
from redserve.domain.request import SequenceKey, SequenceRequest
from redserve.domain.sampling import SamplingParams

__all__ = [
    "FinishReason",
    "Item",
    "ItemMetadata",
    "SamplingParams",
    "SequenceKey",
    "SequenceRequest",
    "Span",
    "TokenLogprob",
    "TokenOutput",
    "Usage",
]
