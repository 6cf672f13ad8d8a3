"""Model sources that pods could not read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from redserve.cluster.facts import Refusal
from redserve.cluster.model_source import MODELS, split_claim
from redserve.spec.patterns import OBJECT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.spec.model import ModelSpec

_REASON = "InvalidModelSource"
_FIELD = "spec.model.uri"
_NAME = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?"
"""Organisations and models of a hub."""


def model_refusals(model: ModelSpec) -> Iterator[Refusal]:
    """What is wrong with a URI of a scheme that can be read."""
    secret = model.token_secret_ref
    if secret is not None and (secret.key == "." or secret.key.startswith("..")):
        yield Refusal(
            _REASON, "spec.model.tokenSecretRef.key", f"{secret.key!r} can be no key of a Secret"
        )
    if model.scheme == "hf":
        yield from _hub_refusals(model)
    if model.scheme == "file":
        yield from _path_refusals(unquote(model.uri.removeprefix("file://")), folder=True)
    if model.scheme == "pvc":
        claim, path = split_claim(model.uri)
        if re.fullmatch(OBJECT_NAME, claim) is None:
            yield Refusal(
                _REASON,
                _FIELD,
                f"{claim!r} is no name of a PersistentVolumeClaim: write pvc://claim/folder",
            )
        yield from _path_refusals(path, folder=False)


def _hub_refusals(model: ModelSpec) -> Iterator[Refusal]:
    name = model.uri.removeprefix("hf://")
    if "@" in name:
        yield Refusal(
            _REASON, _FIELD, "has a revision in it: write hf://organisation/name and model.revision"
        )
    elif re.fullmatch(rf"{_NAME}/{_NAME}", name) is None or ".." in name:
        yield Refusal(_REASON, _FIELD, "is no hub name: write hf://organisation/name")
    revision = model.revision or "main"
    if re.fullmatch(r"[^\s\\~^:?*\[\x00-\x1f\x7f]+", revision) is None or ".." in revision:
        yield Refusal(
            _REASON,
            "spec.model.revision",
            f"{revision!r} is no commit, tag or branch; write one of them",
        )


def _path_refusals(path: str, *, folder: bool) -> Iterator[Refusal]:
    steps = [step for step in path.split("/") if step not in ("", ".")]
    if folder and not steps:
        yield Refusal(
            _REASON,
            _FIELD,
            f"names no folder: write file://folder for one in {MODELS} of the image, or "
            "file:///folder",
        )
    if ".." in steps:
        yield Refusal(_REASON, _FIELD, "leads out of its folder by '..'; write the folder itself")
