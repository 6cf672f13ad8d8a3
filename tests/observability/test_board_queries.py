"""Every question of the dashboards is PromQL, in the eyes of promtool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.observability.boards import Question, asked, choices, questions
from tests.observability.promtool import check_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = [pytest.mark.observability, pytest.mark.timeout(300)]


def as_rules(folder: Path, asked_for: Iterable[Question]) -> Path:
    path = folder / "questions.yaml"
    rules = [
        {"record": f"question:{number}", "expr": asked(one.expr)}
        for number, one in enumerate(asked_for)
    ]
    path.write_text(json.dumps({"groups": [{"name": "questions", "rules": rules}]}))
    return path


def test_they_can_be_read(tmp_path: Path) -> None:
    verdict = check_file(as_rules(tmp_path, [*questions(), *choices()]))
    assert verdict.ok, verdict.said
    assert f"SUCCESS: {len([*questions(), *choices()])} rules found" in verdict.said


def test_one_that_cannot_is_found(tmp_path: Path) -> None:
    wrong = Question("a", "b", "c", "sum(rate(up[$__rate_interval])")
    assert not check_file(as_rules(tmp_path, [wrong])).ok
