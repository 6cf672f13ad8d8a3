"""docs/reference/settings.md: what each service reads from its environment."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Final, get_args

from annotated_types import Ge, Gt, Le

from redserve.spec.settings import EncoderSettings, LLMSettings, ProcessSettings, RouterSettings
from tools.docs.markdown import code, page, table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

SERVICES: Final[dict[str, tuple[str, type[ProcessSettings]]]] = {
    "Router": ("redserve_router", RouterSettings),
    "Encoder": ("redserve_encoder", EncoderSettings),
    "LLM engine": ("redserve_llm", LLMSettings),
}
INTRODUCTION: Final = (
    "`redserve up` and the operator write these variables from the manifest; see the "
    "[configuration reference](configuration.md). They matter when a service is started by hand: "
    "`python -m redserve_router`, `python -m redserve_encoder`, `python -m redserve_llm`. Lists "
    "are JSON. A value that does not fit ends the process with exit status 2 and names the "
    "variable.",
    "",
)
_ENTRY: Final = re.compile(r"^ {4,8}([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)$")


def settings_page() -> str:
    """The page."""
    lines = [*INTRODUCTION, "## Every service", "`*` stands for `ROUTER`, `ENCODER` or `LLM`.", ""]
    lines += _table(ProcessSettings, "REDSERVE_*_", list(ProcessSettings.model_fields))
    for title, (module, kind) in SERVICES.items():
        own = [name for name in kind.model_fields if name not in ProcessSettings.model_fields]
        prefix = str(kind.model_config["env_prefix"])
        lines += ["", f"## {title}", f"`python -m {module}`", "", *_table(kind, prefix, own)]
    return page("Settings reference", *lines)


def described(kind: type[ProcessSettings]) -> dict[str, str]:
    """What the `Attributes:` section of a docstring says, by field."""
    found: dict[str, str] = {}
    names: list[str] = []
    attributes = inspect.getdoc(kind) or ""
    for line in attributes.partition("Attributes:")[2].splitlines():
        entry = _ENTRY.match(line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2].strip())
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _table(kind: type[ProcessSettings], prefix: str, names: list[str]) -> list[str]:
    about = described(kind)
    rows = []
    for name in names:
        field = kind.model_fields[name]
        default = field.default
        shown = default if isinstance(default, str) else json.dumps(default)
        text = f"{about.get(name, '')}{_limits(field)}"
        rows.append((code(f"{prefix}{name}".upper()), code(shown) if shown else "", text))
    return table(("variable", "default", "what it is"), rows)


def _limits(field: FieldInfo) -> str:
    words = []
    for bound in field.metadata:
        if isinstance(bound, Ge):
            words.append(f"at least {bound.ge}")
        elif isinstance(bound, Gt):
            words.append(f"more than {bound.gt}")
        elif isinstance(bound, Le):
            words.append(f"at most {bound.le}")
    choices = [str(arg) for arg in get_args(field.annotation) if isinstance(arg, str)]
    if choices:
        words.append("one of " + ", ".join(code(choice) for choice in choices))
    return f" ({'; '.join(words)})" if words else ""
