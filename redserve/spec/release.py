"""What a manifest may say and this release does nowhere, on one machine or many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.spec.service import RedServiceSpec

_READABLE: Final = ("hf", "file", "pvc")


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A field that would change what the service is, and that cannot be kept.

    Attributes:
        reason: CamelCase word for machines.
        field: Path in the manifest.
        why: What is missing and what to write instead.
    """

    reason: str
    field: str
    why: str


def unsupported(spec: RedServiceSpec) -> Iterator[Unsupported]:
    """Everything that no place can keep, in the order of the manifest's pools and sections."""
    if spec.model.scheme not in _READABLE:
        yield Unsupported(
            "ModelSourceUnsupported",
            "spec.model.uri",
            f"{spec.model.scheme}:// cannot be read by this release: write "
            "hf://organisation/name, or download the model and write file:///folder (in a cluster "
            "pvc://claim/folder, with the model on that PersistentVolumeClaim)",
        )
    if spec.engine.name != "Builtin":
        yield Unsupported(
            "EngineUnsupported",
            "spec.engine.name",
            f"{spec.engine.name} does not run in this release; write Builtin",
        )
    for name, parallelism in (
        ("encoder", spec.encoder.parallelism),
        ("llm", spec.llm.parallelism),
    ):
        if (parallelism.tensor, parallelism.pipeline) != (1, 1):
            yield Unsupported(
                "ParallelismUnsupported",
                f"spec.{name}.parallelism",
                "a replica runs on one device in this release; write more replicas instead",
            )
    if spec.encoder.modalities != ("Image",):
        yield Unsupported(
            "ModalityUnsupported",
            "spec.encoder.modalities",
            "only Image can be served in this release",
        )
    yield from _transport(spec)


def _transport(spec: RedServiceSpec) -> Iterator[Unsupported]:
    if spec.transport.type == "InProcess":
        yield Unsupported(
            "TransportUnsupported",
            "spec.transport.type",
            "replicas are processes of their own; write Auto, RDMA, TCP or GRPC",
        )
    if spec.transport.chunk_tokens is not None:
        yield Unsupported(
            "TransportUnsupported",
            "spec.transport.chunkTokens",
            "an image travels whole in this release; remove it",
        )
