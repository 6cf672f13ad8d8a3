"""Rendering, remembered: a service is decided upon many times before its manifest changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.check import check
from redserve.cluster.render import render
from redserve_operator.decide.accept import manifest_of, parse, refuse
from redserve_operator.decide.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.facts import ClusterFacts, Context, Rendered
    from redserve.spec.service import RedService

_ROOM: Final = 1024
"""Manifests, and as many renderings, of which one takes some 100 kB; a service has one or two."""
_SERVICES: Final = Memory(_ROOM)
_RENDERED: Final = Memory(_ROOM)


def accepted(resource: Mapping[str, Any], facts: ClusterFacts) -> RedService:
    """The manifest, if it can be kept on this cluster.

    Raises:
        ManifestRefused: It cannot.
    """
    text = _text_of(resource)
    return _SERVICES.recall((text, facts), lambda: _accepted(text, facts))


def rendered(resource: Mapping[str, Any], context: Context) -> Rendered:
    """The objects of a manifest that is accepted. Many share them: nobody may change them."""
    return _RENDERED.recall(
        (_text_of(resource), context),
        lambda: render(accepted(resource, context.facts), context),
    )


def _text_of(resource: Mapping[str, Any]) -> str:
    return json.dumps(manifest_of(resource))


def _accepted(text: str, facts: ClusterFacts) -> RedService:
    service = parse(json.loads(text))
    refuse(check(service, facts))
    return service
