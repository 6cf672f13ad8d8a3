"""docs/reference/configuration.md: every field of a RedService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.spec.base import Spec
from redserve.spec.pool import PoolSpec
from redserve.spec.problems import struct_in
from redserve.spec.service import RedService
from tools.docs.fields import anchor, field_table, named_fields
from tools.docs.markdown import page

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from tools.docs.fields import Titles

INTRODUCTION: Final = (
    "A manifest holds one `RedService`. `redserve validate -f FILE` checks it; errors name line "
    "and field. The smallest one:",
    "",
    "```yaml",
    "apiVersion: redserve.dev/v1alpha1",
    "kind: RedService",
    "metadata:",
    "  name: demo",
    "spec:",
    "  model:",
    "    uri: hf://organisation/name",
    "  encoder: {}",
    "  llm: {}",
    "```",
    "",
    "A *quantity* is a number with a unit as in Kubernetes: `512Mi`, `1Gi`, `4`, `500m`. Fields "
    "without a default are optional, unless they are *required*. "
    ""
    "Examples: [for a laptop](../../examples/redservice.yaml), "
    "[for GPUs](../../examples/redservice-minimal.yaml), "
    "[with every field](../../examples/redservice-complete.yaml).",
    "",
)
POOL_PATH: Final = "spec.<pool>"
_POOL_TITLE: Final = "Every pool: spec.encoder, spec.llm, spec.router"


def configuration_page() -> str:
    """The page."""
    lines = list(INTRODUCTION)
    found = sections()
    titles = {struct: _title(path) for path, struct in found}
    for _, struct in found:
        lines += _section(struct, titles)
    return page("Configuration reference", *lines)


def sections() -> list[tuple[str, type[Spec]]]:
    """Every struct once, with the path where it is first met; what pools share comes first."""
    found: dict[type[Spec], str] = {}

    def visit(path: str, struct: type[Spec]) -> None:
        if struct in found:
            return
        found[struct] = path
        if issubclass(struct, PoolSpec) and struct is not PoolSpec:
            visit(POOL_PATH, PoolSpec)
        for name, field in own_fields(struct).items():
            inner = struct_in(field.annotation)
            if inner is not None:
                assert issubclass(inner, Spec)
                visit(f"{path}.{name}".removeprefix("."), inner)

    visit("", RedService)
    return [(path, struct) for struct, path in found.items()]


def own_fields(struct: type[Spec]) -> dict[str, FieldInfo]:
    """Fields by the name that a manifest uses, without those that all pools have."""
    shared = named_fields(PoolSpec) if struct is not PoolSpec else {}
    is_pool = issubclass(struct, PoolSpec)
    return {
        name: field
        for name, field in named_fields(struct).items()
        if not (is_pool and name in shared)
    }


def _title(path: str) -> str:
    return {"": "RedService", POOL_PATH: _POOL_TITLE}.get(path, path)


def _section(struct: type[Spec], titles: Titles) -> list[str]:
    lines = [f"## {titles[struct]}", (struct.__doc__ or "").strip()]
    if issubclass(struct, PoolSpec) and struct is not PoolSpec:
        lines.append(f"It also has the fields of [every pool]({anchor(_POOL_TITLE)}).")
    lines += ["", *field_table(own_fields(struct), titles)]
    inherited = {rule.message for rule in PoolSpec.RULES} if struct is not PoolSpec else set()
    rules = [rule.message for rule in struct.RULES if rule.message not in inherited]
    if rules:
        lines += ["", "Rules: " + "; ".join(rules) + "."]
    return [*lines, ""]
