"""Every event that the operator tells: one table, from which the documentation is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.spec.placement import Role


@dataclass(frozen=True, slots=True)
class EventKind:
    """An event that the operator tells.

    Attributes:
        name: Its reason.
        type: As Kubernetes has it.
        meaning: One sentence for the documentation.
    """

    name: str
    type: Literal["Normal", "Warning"]
    meaning: str


REFUSED: Final = EventKind("SpecRefused", "Warning", "The manifest is refused.")
AMENDED: Final = EventKind(
    "Amended", "Warning", "A policy or webhook of the cluster changes an object that is written."
)
MODEL_CACHED: Final = EventKind(
    "ModelCached", "Normal", "The loader Job has put the checkpoint into the volume."
)
MODEL_FAILED: Final = EventKind("ModelLoadFailed", "Warning", "The loader Job has given up.")
ROLLOUT_STARTED: Final = EventKind(
    "RolloutStarted", "Normal", "Workloads of a new revision are made."
)
ROLLOUT_COMPLETE: Final = EventKind(
    "RolloutComplete", "Normal", "The newest revision serves alone."
)
ROLLOUT_STUCK: Final = EventKind(
    "RolloutStuck", "Warning", "Nothing has moved for longer than the progress deadline."
)
SCALED: Final[Mapping[Role, EventKind]] = {
    "encoder": EventKind("EncoderPoolScaled", "Normal", "The encoder pool has another size."),
    "llm": EventKind("LLMPoolScaled", "Normal", "The LLM pool has another size."),
    "router": EventKind("RouterPoolScaled", "Normal", "The router pool has another size."),
}
CAPACITY: Final = EventKind(
    "InsufficientCapacity", "Warning", "No node has room for a pod, or a quota is used up."
)
READY: Final = EventKind("Ready", "Normal", "The newest revision answers requests.")
DEGRADED: Final = EventKind(
    "Degraded", "Warning", "Something is wrong that will not mend by waiting."
)
RECOVERED: Final = EventKind("Recovered", "Normal", "What was wrong is mended.")
STOPPED: Final = EventKind("Stopped", "Normal", "All pools are being scaled to zero.")
PAUSED: Final = EventKind("Paused", "Normal", "The operator changes nothing from here on.")
RESUMED: Final = EventKind("Resumed", "Normal", "The operator is at work again.")

EVENTS: Final = (
    REFUSED,
    AMENDED,
    MODEL_CACHED,
    MODEL_FAILED,
    ROLLOUT_STARTED,
    ROLLOUT_COMPLETE,
    ROLLOUT_STUCK,
    *SCALED.values(),
    CAPACITY,
    READY,
    DEGRADED,
    RECOVERED,
    STOPPED,
    PAUSED,
    RESUMED,
)
"""All of them, in the order of the documentation."""
