"""Command line: every setting of the environment can be overridden by a flag."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from redserve.errors import ConfigError
from redserve.spec.settings import RouterSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENV_PREFIX = "REDSERVE_ROUTER_"
_JSON = frozenset({"slos"})
"""Lists whose entries are more than a word."""


def parse_settings(arguments: Sequence[str] | None = None) -> RouterSettings:
    """Settings from the environment, with flags on top.

    Raises:
        ConfigError: A variable or flag does not fit; names it.
    """
    given = {
        name: value
        for name, value in vars(_parser().parse_args(arguments)).items()
        if value is not None
    }
    settings = RouterSettings.from_env()
    try:
        return RouterSettings.model_validate({**settings.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{first['msg']} (got {first.get('input')!r})", field=flag) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m redserve_router",
        description="The door of REDServe: gRPC and OpenAI-compatible HTTP.",
        epilog=f"Every flag has an environment variable: --http-port is {_ENV_PREFIX}HTTP_PORT.",
    )
    for name, field in RouterSettings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        shown = _shown(field.default)
        options: dict[str, Any] = {"dest": name, "default": None, "help": f"default: {shown}"}
        if isinstance(field.default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif name in _JSON:
            options["type"] = _json
            options["metavar"] = "JSON"
        elif isinstance(field.default, tuple):
            options["type"] = _comma_separated
            options["metavar"] = "A,B"
        else:
            options["metavar"] = type(field.default).__name__.upper()
        parser.add_argument(flag, **options)
    return parser


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None


def _comma_separated(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(default) or "none"
    return str(default) if default != "" else "empty"
