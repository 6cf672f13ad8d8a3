"""Secrets that images are pulled with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.cluster.scope import Scope


def pull_secrets(scope: Scope) -> list[dict[str, str]]:
    """`imagePullSecrets`: the manifest's, then the release's, none twice."""
    named = [secret.name for secret in scope.service.spec.image_pull_secrets]
    return [{"name": name} for name in dict.fromkeys([*named, *scope.context.images.pull_secrets])]
