"""Flags of the process: every setting has one, named after it; flags win over the environment."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pydantic import ValidationError

from redserve.errors import ConfigError
from redserve.spec.settings import LLMSettings

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: Sequence[str]) -> LLMSettings:
    """Settings from the environment, overridden by flags.

    Raises:
        ConfigError: A variable or flag does not fit; names it and the mend.
        SystemExit: Unknown flag (2), or --help (0).
    """
    flags = vars(_parser().parse_args(arguments))
    given = {name: value for name, value in flags.items() if value is not None}
    settings = LLMSettings.from_env()
    if not given:
        return settings
    try:
        return LLMSettings(**{**settings.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        flag = f"--{'-'.join(str(part) for part in first['loc'])}".replace("_", "-")
        raise ConfigError(f"{first['msg']} (got {first.get('input')!r})", field=flag) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="redserve-llm",
        description="Serve the language side of a checkpoint: embeddings in, tokens out.",
        epilog="Each flag overrides the environment variable that is named beside it.",
        allow_abbrev=False,
    )
    prefix = str(LLMSettings.model_config.get("env_prefix", ""))
    for name, field in LLMSettings.model_fields.items():
        default = field.default if field.default != "" else "none"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=name.rpartition("_")[2].upper(),
            help=f"{prefix}{name.upper()} (default: {default})",
        )
    return parser
