"""What the operator is to do, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve_operator.decide.observed import ObjectKey


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply with force: fields in it are ours from now on, ours not in it are dropped.

    Attributes:
        manifest: The whole of what this manager wants of the object.
        manager: Field manager.
        why: For logs and metrics: "changed", "healed", "scaled", ... With "created" nothing of
            this name is known to be ours: it is written only if nothing of somebody else is there.
    """

    manifest: Manifest
    manager: str
    why: str


@dataclass(frozen=True, slots=True)
class Patch:
    """Strategic merge patch under a manager: takes away what others' fields an apply cannot.

    Attributes:
        manifest: What the object is to be, as an apply would say it.
        patch: What is sent; `metadata.uid` names exactly this object.
        manager: Field manager.
        why: As for `Apply`.
    """

    manifest: Manifest
    patch: Manifest
    manager: str
    why: str


@dataclass(frozen=True, slots=True)
class Create:
    """POST under a manager; nothing happens when ours exists. For values that others then own."""

    manifest: Manifest
    manager: str
    why: str


@dataclass(frozen=True, slots=True)
class ApplyStatus:
    """Server-side apply with force to the status subresource of a child (a RedPool).

    Attributes:
        manifest: apiVersion, kind, name, namespace, uid and the whole `status`; nothing else.
        manager: Field manager.
        why: As for `Apply`.
    """

    manifest: Manifest
    manager: str
    why: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Background deletion, if it still has this uid."""

    key: ObjectKey
    uid: str
    why: str


Action = Apply | Patch | Create | ApplyStatus | Delete


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the RedService, for an edge of its state."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Attributes:
        actions: In order; the first that fails ends the round, which is tried again. One that is
            refused ends nothing: only new workloads that need the refused object wait for it.
        status: The whole of `.status`, to be applied (manager `redserve-operator`, force); None
            when what is stored is right already.
        events: Told after the status has been written, so that a crash in between tells them again
            rather than never.
        probe: Pods to send to the API server in a dry run (POST with dryRun=All; one for each
            pool, told by its label) first. When not empty nothing else is to be done: `reconcile`
            is called again with the result as `Observed.probed`, of revision `probe_revision`. A
            dry run that fails for another reason than a refusal (429, 5xx, no connection) is an
            error of the round, not a result.
        probe_revision: Revision of these pods.
        requeue_after_s: Look again after this time even if nothing changes; None waits for changes.
    """

    actions: tuple[Action, ...] = ()
    status: Manifest | None = None
    events: tuple[Event, ...] = ()
    probe: tuple[Manifest, ...] = ()
    probe_revision: str = ""
    requeue_after_s: float | None = None
