"""`extraArgs` that would end a process at once, or undo what makes its pod be found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from redserve.cluster.facts import Refusal
from redserve.spec.problems import did_you_mean
from redserve.spec.setting_fields import manifest_field
from redserve.spec.workloads import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redserve.spec.placement import Role

_FREE: Final = frozenset({"num-threads"})
"""Flags without a field of their own that may be set all the same."""
_NUMBER: Final = re.compile(r"-\d*\.?\d+")


def argument_refusals(pool: Role, arguments: Sequence[str]) -> Iterator[Refusal]:
    """Every word must be a flag of the process' settings, or the value that follows one."""
    flags = [name.replace("_", "-") for name in SETTINGS[pool].model_fields]
    waits: str | None = None  # the flag before, if it wants this word
    for number, word in enumerate(arguments):
        field = f"spec.{pool}.extraArgs[{number}]"
        if waits is not None:
            if _is_value(word):
                waits = None
                continue
            yield Refusal("InvalidArguments", field, f"is where the value of {waits} should be")
        waits = None
        why = _why_not(pool, word, flags)
        if why:
            yield Refusal("InvalidArguments", field, why)
        elif "=" not in word and not _is_switch(pool, word.removeprefix("--no-").lstrip("-")):
            waits = word
    if waits is not None:
        last = f"spec.{pool}.extraArgs[{len(arguments) - 1}]"
        yield Refusal("InvalidArguments", last, f"{waits} needs a value: write {waits}=VALUE")


def _why_not(pool: Role, word: str, flags: Sequence[str]) -> str:
    if not word.startswith("--"):
        return (
            f"{word!r} is no flag and no flag's value; write flags of the built-in {pool} as "
            "--flag=VALUE"
        )
    name, equals, _ = word.removeprefix("--").partition("=")
    if name == "help":
        return "--help ends the process at once; remove it"
    positive = name.removeprefix("no-")
    if name not in flags and not (positive in flags and _is_switch(pool, positive)):
        return f"the built-in {pool} has no flag --{name}; {did_you_mean(positive, flags)}"
    if positive not in _FREE and manifest_field(pool, positive) is None:
        return f"--{positive} is decided by where the pod is; remove it"
    if equals and _is_switch(pool, positive):
        return f"--{name} takes no value; write --{positive} or --no-{positive}"
    return ""


def _is_switch(pool: Role, flag: str) -> bool:
    """Whether a flag takes no value and has a twin `--no-...`: only routers have such."""
    setting = SETTINGS[pool].model_fields.get(flag.replace("-", "_"))
    return pool == "router" and setting is not None and setting.annotation is bool


def _is_value(word: str) -> bool:
    """Whether the processes take a word for the value of the flag before."""
    return word == "-" or not word.startswith("-") or _NUMBER.fullmatch(word) is not None
