"""Rendering, remembered: a service is decided upon many times before its manifest changes."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.check import check
from redserve.cluster.render import render
from redserve_operator.decide.accept import manifest_of, parse, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.facts import ClusterFacts, Context, Rendered
    from redserve.spec.service import RedService

_NUM_REMEMBERED: Final = 256
"""Services; one takes some 100 kB."""


def accepted(resource: Mapping[str, Any], facts: ClusterFacts) -> RedService:
    """The manifest, if it can be kept on this cluster.

    Raises:
        ManifestRefused: It cannot.
    """
    return _accepted(_text_of(resource), facts)


def rendered(resource: Mapping[str, Any], context: Context) -> Rendered:
    """The objects of a manifest that is accepted. Many share them: nobody may change them."""
    return _rendered(_text_of(resource), context)


def _text_of(resource: Mapping[str, Any]) -> str:
    return json.dumps(manifest_of(resource))


@lru_cache(_NUM_REMEMBERED)
def _accepted(text: str, facts: ClusterFacts) -> RedService:
    service = parse(json.loads(text))
    refuse(check(service, facts))
    return service


@lru_cache(_NUM_REMEMBERED)
def _rendered(text: str, context: Context) -> Rendered:
    return render(_accepted(text, context.facts), context)
