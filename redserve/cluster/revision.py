"""The revision: a hash over everything that pods are made from."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.cluster.facts import PoolObjects

LENGTH = 8


def revision_of(pools: Iterable[PoolObjects]) -> str:
    """8 hexadecimal digits over pod templates, settings and headless Services.

    Sizes, rollout steps and owners are not in it: to change them no pod needs to be replaced.

    Args:
        pools: All pools, rendered with `scope.NO_REVISION`.
    """
    content = [_content(pool) for pool in pools]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _content(pool: PoolObjects) -> list[Any]:
    workload = pool.workload["spec"]
    template = workload.get("template") or workload["leaderWorkerTemplate"]
    return [pool.pool, template, pool.config["data"], pool.service["spec"]]
