"""Whole plans, compared with the files under tests/operator/golden."""

from __future__ import annotations

import pytest

from tests.operator.decide.golden_files import GOLDEN, SCENES, golden_path, golden_text


@pytest.mark.parametrize("name", SCENES)
def test_plan(name):
    text = golden_text(SCENES[name])
    rewrite = "python -m tests.operator.decide.golden_files"
    assert text == golden_path(name).read_text(), f"if it is meant, run: {rewrite}"


def test_there_is_no_file_without_a_scene():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(SCENES)
