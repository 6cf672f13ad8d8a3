from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redserve.errors import ConfigError
from redserve.local.last_words import RefusedStart, conclusion, refusal_in
from redserve.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    yield
    log.configure("info", "text", "")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "why", ['token_budget: it\'s "13", that is bad', "short", "a=b", "two\nlines"]
)
def test_a_refusal_is_read_from_the_log_as_it_is_written(
    form: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", form, "llm-0")
    log.get_logger().error("cannot start", reason=ConfigError.reason, why=why)
    log.get_logger().info("stopped")
    lines = capsys.readouterr().err.splitlines()
    assert refusal_in(lines) == RefusedStart("CONFIG_ERROR", " ".join(why.split()))


@pytest.mark.parametrize("form", ["text", "json"])
def test_of_a_logged_traceback_the_error_counts(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", form, "llm-0")
    weights: dict[str, int] = {}
    try:
        weights["lm_head"]
    except KeyError:
        log.get_logger().exception("the engine died")
    log.get_logger().info("stopped")
    assert conclusion(capsys.readouterr().err.splitlines()) == "KeyError: 'lm_head'"


def test_of_several_tracebacks_the_last_counts() -> None:
    lines = ["Traceback (most recent call last):", "  File", "KeyError: 1", "", "During handling"]
    lines += ["", "Traceback (most recent call last):", "  File", "    ~~^^", "ValueError: 2"]
    lines += ["resource_tracker.py: UserWarning: leaked", "  warnings.warn("]
    assert conclusion(lines) == "ValueError: 2"


def test_a_group_of_errors_ends_with_one_of_them() -> None:
    lines = ["  + Exception Group Traceback (most recent call last):", "  | ExceptionGroup: two"]
    lines += ["    | ValueError: 2", "    +------------------------------------"]
    assert conclusion(lines) == "| ValueError: 2"


def test_without_a_traceback_the_last_word_counts() -> None:
    assert conclusion(["one", "two ", "", "----"]) == "two"
    assert conclusion(["{not json", "{}"]) == "{not json"
    assert conclusion([]) == ""
    assert refusal_in(["cannot start", "{", "[1]"]) is None
