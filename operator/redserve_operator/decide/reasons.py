"""Every reason that a condition can have: one table, from which the documentation is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Status = Literal["True", "False", "Unknown"]

CONDITIONS: Final = (
    "Accepted",
    "ModelCached",
    "EncoderReady",
    "LLMReady",
    "RouterReady",
    "TransportReady",
    "MonitoringReady",
    "Ready",
    "Progressing",
    "Degraded",
)
"""In the order in which they are listed in status."""
POOL_CONDITIONS: Final = {
    "encoder": "EncoderReady",
    "llm": "LLMReady",
    "router": "RouterReady",
}
_POOLS: Final = tuple(POOL_CONDITIONS.values())
_SERVING: Final = (*_POOLS, "Ready")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a condition is to say.

    Attributes:
        status: Of the condition.
        reason: CamelCase word out of `REASONS`.
        message: A sentence; no number in it changes faster than the state of the world does.
    """

    status: Status
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Reason:
    """A word that conditions use.

    Attributes:
        name: The word.
        status: Status that comes with it.
        conditions: Types of the conditions that use it.
        meaning: One sentence for the documentation.
    """

    name: str
    status: Status
    conditions: tuple[str, ...]
    meaning: str

    def says(self, message: str, status: Status | None = None) -> Verdict:
        """A verdict with this reason."""
        return Verdict(status or self.status, self.name, message)


VALID: Final = Reason(
    "Valid", "True", ("Accepted",), "The manifest can be kept and the API server takes its pods."
)
AMENDED: Final = Reason(
    "Amended",
    "True",
    ("Accepted",),
    "The manifest can be kept, but a policy or webhook of the cluster changes an object on its way "
    "into the API server; it is left as it is and written again every 10 minutes.",
)
INVALID_MANIFEST: Final = Reason(
    "InvalidManifest",
    "False",
    ("Accepted",),
    "A field has a value that the API server's schema lets through and REDServe cannot use.",
)
INVALID_POD_TEMPLATE: Final = Reason(
    "InvalidPodTemplate",
    "False",
    ("Accepted",),
    "The API server refused a pod of this manifest in a dry run; the message is its own.",
)
OBJECT_REFUSED: Final = Reason(
    "ObjectRefused",
    "False",
    ("Accepted", "MonitoringReady", "Progressing", "Degraded"),
    "The API server refused an object that was made from the manifest, or somebody else has one of "
    "its name; it is tried again, and everything else is done.",
)
SPEC_REFUSED: Final = Reason(
    "SpecRefused",
    "Unknown",
    tuple(name for name in CONDITIONS if name != "Accepted"),
    "The manifest is refused (see Accepted); nothing is changed until it is mended.",
)
PAUSED: Final = Reason(
    "Paused",
    "Unknown",
    tuple(name for name in CONDITIONS if name != "Accepted"),
    "reconcile is Paused: the operator changes nothing.",
)
STOPPED: Final = Reason(
    "Stopped",
    "False",
    (*_SERVING, "TransportReady", "Progressing", "Degraded"),
    "reconcile is Stopped: all pools are scaled to zero.",
)
LOADED: Final = Reason(
    "Loaded", "True", ("ModelCached",), "The loader Job has put the checkpoint into the volume."
)
IN_IMAGE: Final = Reason(
    "InImage", "True", ("ModelCached",), "The checkpoint is part of the container image."
)
VOLUME: Final = Reason(
    "Volume", "True", ("ModelCached",), "The checkpoint lies in a volume that others fill."
)
EPHEMERAL: Final = Reason(
    "Ephemeral",
    "True",
    ("ModelCached",),
    "Each pod fetches the checkpoint into scratch space when it starts.",
)
LOADING: Final = Reason(
    "Loading", "False", ("ModelCached",), "The loader Job is at work, or waits for a node."
)
MODEL_LOAD_FAILED: Final = Reason(
    "ModelLoadFailed",
    "False",
    ("ModelCached", "Progressing", "Degraded"),
    "The loader Job has given up; the message is its report. Delete the Job to try again.",
)
MODEL_NOT_CACHED: Final = Reason(
    "ModelNotCached",
    "False",
    (*_SERVING, "Progressing"),
    "Pods wait until the checkpoint is in the volume (see ModelCached).",
)
ALL_READY: Final = Reason(
    "AllReady",
    "True",
    _SERVING,
    "As many pods of the newest revision are ready as are wanted.",
)
MINIMUM_READY: Final = Reason(
    "MinimumReady",
    "True",
    _SERVING,
    "At least minReplicas pods are ready; more are wanted by whoever scales the pool. For Ready "
    "also: as many as maxUnavailable asks for.",
)
PODS_NOT_READY: Final = Reason(
    "PodsNotReady",
    "False",
    (*_SERVING, "TransportReady"),
    "Pods of the newest revision are starting or fail their readiness probe.",
)
INSUFFICIENT_CAPACITY: Final = Reason(
    "InsufficientCapacity",
    "False",
    (*_SERVING, "Progressing", "Degraded"),
    "No node has room for a pod, or a quota is used up; the message is the scheduler's own.",
)
WAITING_FOR_DRAIN: Final = Reason(
    "WaitingForDrain",
    "False",
    _SERVING,
    "A pod has no node yet, and pods that drain are about to make room.",
)
IMAGE_PULL_FAILED: Final = Reason(
    "ImagePullFailed",
    "False",
    (*_SERVING, "Degraded"),
    "A node cannot pull a container image; the message is the kubelet's own.",
)
CRASH_LOOP: Final = Reason(
    "CrashLoop",
    "False",
    (*_SERVING, "Degraded"),
    "A container keeps ending; the message is its last words.",
)
POD_FAILING: Final = Reason(
    "PodFailing",
    "False",
    (*_SERVING, "Degraded"),
    "A pod cannot run for another reason, such as a volume that is missing.",
)
PODS_REFUSED: Final = Reason(
    "PodsRefused",
    "False",
    (*_SERVING, "Degraded"),
    "The API server refuses to create pods; the message is its own.",
)
UPDATING: Final = Reason(
    "Updating",
    "False",
    _SERVING,
    "The newest revision is not ready yet; the one before it serves meanwhile. Ready is True then.",
)
SCALED_TO_ZERO: Final = Reason(
    "ScaledToZero",
    "True",
    (*_SERVING, "TransportReady"),
    "A pool has a size of 0, as is wanted. Without encoders texts are answered, without engines or "
    "routers nothing.",
)
GRPC: Final = Reason(
    "GRPC", "True", ("TransportReady",), "Embeddings travel from encoders to engines by gRPC."
)
RDMA: Final = Reason(
    "RDMA", "True", ("TransportReady",), "Embeddings travel by NIXL over RDMA and in no other way."
)
TCP: Final = Reason("TCP", "True", ("TransportReady",), "Embeddings travel by NIXL over TCP.")
AUTO: Final = Reason(
    "Auto",
    "True",
    ("TransportReady",),
    "Embeddings travel by RDMA between pods that both have it, else by gRPC.",
)
PROMETHEUS_RULE: Final = Reason(
    "PrometheusRule",
    "True",
    ("MonitoringReady",),
    "Recording rules and alerts are in a PrometheusRule; the message names it and the PodMonitor.",
)
CONFIG_MAP: Final = Reason(
    "ConfigMap",
    "True",
    ("MonitoringReady",),
    "Recording rules and alerts are in a ConfigMap, for the kind PrometheusRule is not served.",
)
NO_RULES: Final = Reason(
    "NoRules", "True", ("MonitoringReady",), "None are made: monitoring.rules is Disabled."
)
ROLLOUT_COMPLETE: Final = Reason(
    "RolloutComplete", "False", ("Progressing",), "Nothing is left to do."
)
ROLLOUT_IN_PROGRESS: Final = Reason(
    "RolloutInProgress", "True", ("Progressing",), "A new revision is taking over."
)
SCALING: Final = Reason(
    "Scaling", "True", ("Progressing",), "Pods are being started, replaced or stopped."
)
ROLLOUT_STUCK: Final = Reason(
    "RolloutStuck",
    "False",
    ("Progressing", "Degraded"),
    "Nothing has moved for longer than a start may take: half an hour for the image, half an hour "
    "or what the startup probe allows for the process, and the drain timeout.",
)
AS_EXPECTED: Final = Reason(
    "AsExpected", "False", ("Degraded",), "Nothing is wrong that waiting would not mend."
)
CHECKS: Final = Reason(
    "(reason of the check)",
    "False",
    ("Accepted",),
    "Something that this release or this cluster cannot keep: see `redserve validate`.",
)

REASONS: Final = (
    VALID,
    AMENDED,
    INVALID_MANIFEST,
    INVALID_POD_TEMPLATE,
    OBJECT_REFUSED,
    CHECKS,
    LOADED,
    IN_IMAGE,
    VOLUME,
    EPHEMERAL,
    LOADING,
    MODEL_LOAD_FAILED,
    MODEL_NOT_CACHED,
    ALL_READY,
    MINIMUM_READY,
    PODS_NOT_READY,
    UPDATING,
    INSUFFICIENT_CAPACITY,
    WAITING_FOR_DRAIN,
    IMAGE_PULL_FAILED,
    CRASH_LOOP,
    POD_FAILING,
    PODS_REFUSED,
    SCALED_TO_ZERO,
    GRPC,
    RDMA,
    TCP,
    AUTO,
    PROMETHEUS_RULE,
    CONFIG_MAP,
    NO_RULES,
    ROLLOUT_COMPLETE,
    ROLLOUT_IN_PROGRESS,
    SCALING,
    ROLLOUT_STUCK,
    AS_EXPECTED,
    STOPPED,
    PAUSED,
    SPEC_REFUSED,
)
"""All of them, in the order of the documentation."""
