"""Where the pods of a cluster find the checkpoint, and who puts it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from redserve.spec.model import ModelSpec

MODELS: Final = "/models"
"""Folder of checkpoints in every container: the image's own, or a volume."""
HUB_CACHE: Final = f"{MODELS}/hub"
VOLUME: Final = "models"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A checkpoint in the eyes of a pod.

    Attributes:
        uri: What processes load.
        cache_dir: Where a hub's snapshots are; empty when none is used.
        claim: PersistentVolumeClaim that is mounted at `MODELS`; empty when none is.
        claim_is_read_only: The manifest says that nobody may write to it.
        size_limit: Most bytes of scratch space; empty for no limit.
        filled_by: Nobody, one Job for all pods, or an init container in each.
    """

    uri: str
    cache_dir: str = ""
    claim: str = ""
    claim_is_read_only: bool = False
    size_limit: str = ""
    filled_by: Literal["nobody", "job", "init"] = "nobody"

    def volumes(self) -> list[dict[str, Any]]:
        """Volumes of a pod."""
        if self.claim:
            claim: dict[str, Any] = {"claimName": self.claim}
            if self.claim_is_read_only:
                claim["readOnly"] = True
            return [{"name": VOLUME, "persistentVolumeClaim": claim}]
        if self.filled_by == "init":
            limit = {"sizeLimit": self.size_limit} if self.size_limit else {}
            return [{"name": VOLUME, "emptyDir": limit}]
        return []

    def mounts(self, *, writable: bool = False) -> list[dict[str, Any]]:
        """Mounts of a container; only the loader writes."""
        if not self.volumes():
            return []
        mount = {"name": VOLUME, "mountPath": MODELS}
        return [mount if writable else {**mount, "readOnly": True}]


def model_source(model: ModelSpec) -> ModelSource:
    """What a manifest's model is for pods. Schemes that no release can read pass through."""
    scheme, _, rest = model.uri.partition("://")
    if scheme == "file":
        return ModelSource(model.uri if rest.startswith("/") else f"file://{MODELS}/{rest}")
    if scheme == "pvc":
        claim, path = split_claim(model.uri)
        folder = f"{MODELS}/{path}" if path else MODELS
        return ModelSource(f"file://{quote(folder)}", claim=claim, claim_is_read_only=True)
    if scheme == "hf":
        return _from_hub(model)
    return ModelSource(model.uri)


def split_claim(uri: str) -> tuple[str, str]:
    """`pvc://claim/some/path` as ("claim", "some/path")."""
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    return claim, unquote(path).strip("/")


def _from_hub(model: ModelSpec) -> ModelSource:
    cache = model.cache
    claim = cache.persistent_volume_claim if cache else None
    if claim is not None:
        return ModelSource(
            model.uri,
            cache_dir=HUB_CACHE,
            claim=claim.claim_name,
            claim_is_read_only=claim.read_only,
            filled_by="nobody" if claim.read_only else "job",
        )
    scratch = cache.ephemeral if cache else None
    return ModelSource(
        model.uri,
        cache_dir=HUB_CACHE,
        size_limit=str(scratch.size_limit) if scratch else "",
        filled_by="init",
    )
