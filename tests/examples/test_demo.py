from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_under_test", EXAMPLES / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_request_that_is_shown_comes_first(demo: ModuleType) -> None:
    questions = demo.load_questions(EXAMPLES / "questions.yaml")
    assert len(questions[0].images) == 8
    assert len(questions[0].answer) == max(len(one.answer) for one in questions)
    assert all(image.is_file() for one in questions for image in one.images)
    shown = set(questions[0].images)
    assert any(set(one.images) - shown for one in questions), "something is left to warm up with"


@pytest.mark.parametrize(
    ("answer", "left", "status"),
    [
        ("a red circle", [], 0),
        (" a red circle\n", [], 0),
        ("a circle", [], 1),
        ("a red circle", [7], 1),
    ],
)
def test_wrong_answers_and_leftovers_fail(
    demo: ModuleType,
    answer: str,
    left: list[int],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    question = demo.Question((), "what is in image 1?", "a red circle")
    assert demo.conclude([demo.Asked(question, "gRPC", answer, 0.1)], left) == status
    captured = capsys.readouterr()
    assert ("WRONG" in captured.out) == ("red" not in answer)
    assert ("processes are left: 7" in captured.err) == bool(left)


def test_nothing_asked_is_no_success(demo: ModuleType) -> None:
    assert demo.conclude([], []) == 1


def test_a_service_that_does_not_start_is_told(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    left: list[int] = []
    with demo.service(["-f", str(tmp_path / "none.yaml")], left) as state:
        assert state is None
    assert left == []
