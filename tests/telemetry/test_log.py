from __future__ import annotations

import json
import logging

import pytest
import structlog

from redserve.telemetry import log as log_module
from redserve.telemetry.log import CONTENT_KEYS, MAX_VALUE_LENGTH, configure, get_logger

SECRET = "my medical report"


@pytest.fixture(autouse=True)
def _restore():
    root = logging.getLogger()
    handlers, level, config = [*root.handlers], root.level, structlog.get_config()
    known = structlog.is_configured()
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if known:
        structlog.configure(**config)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("fmt", ["text", "json"])
@pytest.mark.parametrize("key", sorted(CONTENT_KEYS))
def test_content_is_replaced_by_its_size(capfd, fmt: str, key: str):
    configure("debug", fmt, "router")
    get_logger().info("got", **{key: SECRET})
    get_logger().info("got", **{key: [SECRET]})
    get_logger().info("got", **{key: {"a": SECRET}})
    out, err = capfd.readouterr()
    assert out == ""
    assert SECRET not in err
    assert f"<{len(SECRET)} hidden>" in err


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_a_traceback_shows_no_local_variables(capfd, fmt: str):
    configure("debug", fmt, "router")

    def handler() -> None:
        prompt = SECRET
        raise RuntimeError(f"broken after {len(prompt)} characters")

    try:
        handler()
    except RuntimeError:
        get_logger().exception("unhandled")
    err = capfd.readouterr().err
    assert "broken after 17 characters" in err
    assert "handler" in err
    assert SECRET not in err


def test_bytes_are_counted_and_long_values_cut(capfd):
    configure("info", "json", "router")
    get_logger().info("got", blob=SECRET.encode(), why="x" * 5000)
    line = json.loads(capfd.readouterr().err)
    assert line["blob"] == f"<{len(SECRET)} bytes>"
    assert len(line["why"]) < MAX_VALUE_LENGTH + 50
    assert "5000 characters" in line["why"]


def test_json_lines_carry_process_level_time_and_figures(capfd):
    configure("info", "json", "encoder-0")
    get_logger().info("encoded", request_id="r-1", num_rows=256)
    line = json.loads(capfd.readouterr().err)
    assert line["event"] == "encoded"
    assert line["process"] == "encoder-0"
    assert line["level"] == "info"
    assert line["request_id"] == "r-1"
    assert line["num_rows"] == 256
    assert line["timestamp"].endswith("Z")


def test_level_filters(capfd):
    configure("warning", "text", "")
    get_logger().info("quiet")
    get_logger().warning("loud")
    err = capfd.readouterr().err
    assert "quiet" not in err
    assert "loud" in err


def test_a_logger_made_before_configure_follows_it(capfd):
    logger = get_logger()
    logger.info("before")
    configure("info", "json", "llm-0")
    logger.info("after")
    out, err = capfd.readouterr()
    before, after = err.splitlines()
    assert out == ""
    assert "before" in before
    assert json.loads(after)["process"] == "llm-0"


def test_libraries_log_in_the_same_form_once(capfd):
    configure("info", "json", "router")
    configure("info", "json", "router")
    logging.getLogger("some.library").warning("odd: %s", "thing")
    lines = capfd.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["odd: thing"]


HOSTILE = "a\x1b[31mred\x07\x9b\u202egnp.exe\u2066\x7f\r\nfake line \u00fc"


def hostile_lines() -> None:
    get_logger().info(HOSTILE, field=HOSTILE, many=[HOSTILE], error=KeyError(HOSTILE))
    logging.getLogger("some.library").warning("odd: %s", HOSTILE)


@pytest.mark.parametrize("is_configured", [True, False])
def test_no_value_does_anything_to_a_terminal(capfd, is_configured: bool):
    logger = get_logger()
    if is_configured:
        configure("info", "text", "router")
        hostile_lines()
    else:
        logger.info(HOSTILE, field=HOSTILE)
    written = capfd.readouterr().err
    assert len(written.splitlines()) == (2 if is_configured else 1)
    assert all(line.isprintable() for line in written.split("\n"))
    assert r"a\x1b[31mred\x07\x9b\u202egnp.exe" in written
    assert "\u00fc" in written


def test_a_traceback_keeps_its_lines_and_no_more(capfd):
    configure("info", "text", "router")

    def handler() -> None:
        raise RuntimeError("\x1b[2J")

    try:
        handler()
    except RuntimeError:
        get_logger().exception("unhandled")
    written = capfd.readouterr().err
    assert len(written.splitlines()) > 3
    assert "\x1b" not in written


def test_json_has_values_as_they_are(capfd):
    configure("info", "json", "router")
    hostile_lines()
    written = capfd.readouterr().err
    assert "\x1b" not in written
    assert "\u202e" not in written
    first, second = map(json.loads, written.splitlines())
    assert first["field"] == HOSTILE
    assert second["event"] == f"odd: {HOSTILE}"


def test_wrong_level_is_refused():
    with pytest.raises(KeyError):
        configure("loud", "text", "router")
    assert {"prompt", "messages", "token_ids", "text", "data"} <= log_module.CONTENT_KEYS
