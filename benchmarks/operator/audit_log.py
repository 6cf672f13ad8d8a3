"""Who wrote what, as the API server's own audit log tells it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

USER: Final = "redserve-operator"
_WRITES: Final = ["create", "update", "patch", "delete", "deletecollection"]


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What was written."""

    resource: str
    subresource: str
    namespace: str
    name: str


def write_policy(path: Path) -> tuple[str, ...]:
    """Write an audit policy; returns the API server's flags for a log beside it."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "users": [USER], "verbs": _WRITES},
            {"level": "None"},
        ],
    }
    path.write_text(json.dumps(policy))
    return (f"--audit-policy-file={path}", f"--audit-log-path={log_path(path)}")


def log_path(policy: Path) -> Path:
    """Where the log of a policy is."""
    return policy.with_suffix(".log")


def count_writes(policy: Path) -> Counter[Target]:
    """Writes of the operator by target; dry runs, which change nothing, are left out."""
    counted: Counter[Target] = Counter()
    for line in log_path(policy).read_text().splitlines():
        entry = json.loads(line)
        if "dryRun" in entry["requestURI"]:
            continue
        about = entry.get("objectRef", {})
        counted[
            Target(
                about.get("resource", ""),
                about.get("subresource", ""),
                about.get("namespace", ""),
                about.get("name", ""),
            )
        ] += 1
    return counted
