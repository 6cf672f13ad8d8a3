"""Every reason and event that the operator can tell has its line in the troubleshooting page."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from redserve_operator.decide.event_kinds import EVENTS
from redserve_operator.decide.reasons import CHECKS, REASONS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/how-to/kubernetes-troubleshooting.md").read_text()


def refusal_reasons() -> list[str]:
    """First arguments of every `Refusal(...)` of the checks, constants resolved in their file."""
    found: set[str] = set()
    for path in [*ROOT.glob("redserve/cluster/check*.py"), ROOT / "redserve/spec/release.py"]:
        tree = ast.parse(path.read_text())
        names = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "Refusal",
                "Unsupported",
            ):
                first = node.args[0] if node.args else node.keywords[0].value
                value = names.get(first.id) if isinstance(first, ast.Name) else None
                found.add(str(first.value if isinstance(first, ast.Constant) else value))
    return sorted(found - {"None"})


@pytest.mark.parametrize("name", sorted({r.name for r in REASONS} - {CHECKS.name}))
def test_reason_is_explained(name):
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sorted({event.name for event in EVENTS}))
def test_event_is_explained(name):
    assert f"`{name}`" in PAGE


def test_refusals_of_the_checks_are_explained():
    reasons = refusal_reasons()
    assert len(reasons) > 5
    assert [name for name in reasons if f"`{name}`" not in PAGE] == []
